"""Crops of an evaluation set, cut once for all networks that look at them."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.base.files import read_json, write_json
from posequant.base.model_spec import ModelSpec
from posequant.data.crops import Cropper, Crops, crops_of_images
from posequant.data.dataset import (
    CHUNK,
    Instances,
    by_image,
    evaluation_instances,
    require_sizes,
    say_notices,
    shard_of,
)
from posequant.workflow.settings.data import EvaluationCrops

DEFAULT = EvaluationCrops()
_REMAKE = "Delete it and run again."


def keep_crops(
    *,
    model: Path,
    images: Path,
    annotations: Path,
    detections: Path | None,
    folder: Path,
    settings: EvaluationCrops = DEFAULT,
    threads: int = 1,
    shard: int = 1,
    shards: int = 1,
) -> dict[str, Any]:
    """Write the crops of a shard of an evaluation set, unless those of the whole set take more than a limit.

    The first shard says who is left out (`Instances.notices`).

    Args:
        model: the model description, `model.json`.
        images: folder of the images.
        annotations: COCO keypoint annotations of the evaluation set.
        detections: COCO detection results whose boxes are taken in place of the annotated ones.
        folder: where to write; it is created. `crops.npy` holds the crops as `Cropper.cut` makes them, uint8
            (N, H, W, 3), in the order of the shard's people; it is missing where they are too large. `crops.json` says
            what they are of.
        settings: what the crops of all shards may take.
        threads: how many threads work.
        shard: which of the shards, from 1.
        shards: how many there are.

    Returns:
        The content of `crops.json`.

    Raises:
        InputError: an input is missing or damaged.
    """
    spec = ModelSpec.load(model)
    everyone = evaluation_instances(annotations, detections, spec.keypoints)
    instances = shard_of(everyone, shard, shards)
    if shard == 1:
        say_notices(everyone)
    require_sizes(images, everyone, shard, shards)
    width, height = spec.input_size
    gigabytes = len(everyone) * height * width * 3 / 1e9
    record = {
        "people": len(instances),
        "gigabytes_of_all_shards": gigabytes,
        "limit_gb": settings.limit_gb,
        "kept": gigabytes <= settings.limit_gb,
        "made_of": _made_of(spec, instances),
    }
    folder.mkdir(parents=True)
    write_json(folder / "crops.json", record)
    if record["kept"]:
        _write(folder / "crops.npy", spec, instances, images, threads)
    return record


def open_crops(folder: Path, spec: ModelSpec, instances: Instances) -> Crops | None:
    """Return the crops that `keep_crops` kept of people, read from the disk when they are asked for.

    Returns:
        None where they were too large to be kept.

    Raises:
        InputError: a file is missing or damaged, or the crops are of other people or of another size.
    """
    record = read_json(folder / "crops.json")
    if not isinstance(record, dict) or record.get("made_of") != _made_of(spec, instances):
        raise InputError(f"{folder}: holds the crops of other people, or made in another way. {_REMAKE}")
    if not record.get("kept"):
        return None
    path = folder / "crops.npy"
    width, height = spec.input_size
    try:
        stored = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: the crops cannot be read ({error}). {_REMAKE}") from error
    if stored.dtype != np.uint8 or stored.shape != (len(instances), height, width, 3):
        raise InputError(f"{path}: holds {stored.dtype} {stored.shape}, not {len(instances)} crops. {_REMAKE}")
    return lambda people: np.asarray(stored[people])


def _write(path: Path, spec: ModelSpec, instances: Instances, images: Path, threads: int) -> None:
    crops = crops_of_images(Cropper(spec), instances, images)
    order = by_image(instances)
    chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    width, height = spec.input_size
    stored = open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(instances), height, width, 3))
    with (
        tqdm(total=len(order), desc="cropping", unit="person", mininterval=2) as progress,
        ThreadPoolExecutor(threads) as executor,
    ):
        for chunk, cut in zip(chunks, executor.map(crops, chunks), strict=True):
            stored[chunk] = cut
            progress.update(len(chunk))
    stored.flush()


def _made_of(spec: ModelSpec, instances: Instances) -> str:
    """Return the hex SHA-256 of all that decides what the crops of people look like, but for the images' pixels."""
    files = [instances.images[index].file_name for index in instances.image_indices]
    described = json.dumps([spec.input_size, spec.padding, spec.use_udp, files])
    return hashlib.sha256(described.encode() + instances.bboxes.tobytes()).hexdigest()
