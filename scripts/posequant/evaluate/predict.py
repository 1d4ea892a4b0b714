"""Keypoints of every person of a dataset, by any backend."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import versions
from posequant.data.crops import Cropper
from posequant.data.dataset import (
    Instances,
    evaluation_instances,
    read_image,
    require_images,
)
from posequant.evaluate.decode import Decoder, average_with_mirrored, mirror
from posequant.evaluate.predictions import Poses, Predictions
from posequant.networks.base import Network
from posequant.networks.opening import open_network

# People that one thread takes at a time: enough for a batch, and few enough to keep all threads busy to the end.
CHUNK = 8

_PACKAGES = {
    "pytorch": ("torch", "mmpose"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "ncnn": ("ncnn",),
}


def make_predictions(
    *,
    model: Path,
    variant: str,
    backend: str,
    precision: str,
    artifacts: Sequence[Path],
    images: Path,
    annotations: Path,
    detections: Path | None,
    flip_test: bool,
    threads: int,
    shard: int = 1,
    shards: int = 1,
) -> Predictions:
    """Predict the pose of every person of an evaluation set, or of one shard of it.

    Args:
        model: the model description, `model.json`.
        variant: name of the row that the predictions belong to.
        backend: see `open_network`, as for `precision` and `artifacts`.
        precision: the arithmetic.
        artifacts: files of the network.
        images: folder of the images.
        annotations: COCO keypoint annotations of the evaluation set.
        detections: COCO detection results whose boxes are taken in place of the annotated ones.
        flip_test: whether to average with the prediction for the mirrored crop.
        threads: how many threads work; the result does not depend on it.
        shard: which of the shards to predict, from 1; their identity is that of the whole.
        shards: how many there are.

    Raises:
        InputError: an input is missing, damaged or does not fit the others; there is no such shard.
    """
    spec = ModelSpec.load(model)
    instances = evaluation_instances(annotations, detections)
    identity = {
        "model": spec.name,
        "variant": variant,
        "backend": backend,
        "precision": precision,
        "protocol": {"boxes": "detections" if detections else "ground-truth", "flip_test": flip_test},
        "instances": len(instances),
        "sha256": {
            "model": sha256(model),
            "artifact": {path.name: sha256(path) for path in artifacts},
            "annotations": sha256(annotations),
            "detections": sha256(detections) if detections else None,
        },
        "versions": versions(*_PACKAGES[backend], "numpy", "opencv-python-headless"),
    }
    instances = shard_of(instances, shard, shards)
    network = open_network(backend, precision, artifacts, spec, threads)
    return Predictions(
        ids=instances.ids,
        image_ids=instances.image_ids,
        bboxes=instances.bboxes,
        bbox_scores=instances.bbox_scores,
        poses=predict_poses(network, spec, instances, images, flip_test=flip_test, threads=threads),
        identity=identity,
    )


def shard_of(instances: Instances, shard: int, shards: int) -> Instances:
    """Return the people of shard number `shard` of `shards`, in their order: about as many as in the others.

    A network that takes a chunk as one batch may round by what else is in it. Therefore no chunk is ever cut: a shard
    is a run of those that `predict_poses` makes of all people.

    Raises:
        InputError: `shard` is not in 1..`shards`.
    """
    if not 1 <= shard <= shards:
        raise InputError(f"shard {shard} of {shards}: give a number from 1 to the number of shards.")
    chunks = np.array_split(np.arange(0, len(instances), CHUNK), shards)[shard - 1]
    people = by_image(instances)[chunks[0] : chunks[-1] + CHUNK] if len(chunks) else chunks
    return instances.select(np.sort(people))


def by_image(instances: Instances) -> NDArray[np.int64]:
    """Return the order of the people image by image, whatever the order of their boxes, so that each is read once."""
    return np.argsort(instances.image_indices, kind="stable")


def predict_poses(
    network: Network,
    spec: ModelSpec,
    instances: Instances,
    images: Path,
    *,
    flip_test: bool,
    threads: int,
    show_progress: bool = True,
) -> Poses:
    """Predict the pose of each of `instances`, with images from the folder `images`.

    Each thread reads, crops, infers and decodes `CHUNK` people at a time, so that while one reads another infers. A
    chunk that waits holds no pixels: memory grows with the threads, not with the dataset.

    Raises:
        InputError: an image is missing or damaged; the network's output does not fit the codec or is not finite.
    """
    import cv2

    cv2.setNumThreads(1)  # the threads are ours
    require_images(images, [instances.images[index] for index in np.unique(instances.image_indices)])
    worker = _Worker(network, spec, Cropper(spec), Decoder(spec), images, flip_test)
    order = by_image(instances)
    chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    poses = Poses.empty(len(order))
    with (
        tqdm(total=len(order), desc="predicting", unit="person", mininterval=2, disable=not show_progress) as progress,
        ThreadPoolExecutor(threads) as executor,
    ):
        for chunk, found in zip(chunks, executor.map(worker.predict, map(instances.select, chunks)), strict=True):
            poses.put(chunk, found)
            progress.update(len(chunk))
    return poses


@dataclass(frozen=True)
class _Worker:
    """What the threads share."""

    network: Network
    spec: ModelSpec
    cropper: Cropper
    decoder: Decoder
    images: Path
    flip_test: bool

    def predict(self, instances: Instances) -> Poses:
        crops, centers, scales = [], [], []
        for index in dict.fromkeys(instances.image_indices.tolist()):
            pixels = read_image(self.images, instances.images[index])
            for bbox in instances.bboxes[instances.image_indices == index]:
                crop, center, scale = self.cropper.cut(pixels, bbox)
                crops.append(self.cropper.normalise(crop))
                centers.append(center)
                scales.append(scale)
        outputs = self._infer(np.stack(crops))
        self._require_finite(outputs, instances)
        places = np.stack(centers), np.stack(scales)
        return Poses(*self.decoder.decode(outputs, *places), *places)

    def _infer(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        outputs = self.network.forward(crops)
        if not self.flip_test:
            return outputs
        return average_with_mirrored(outputs, self.network.forward(mirror(crops)), self.spec)

    def _require_finite(self, outputs: Sequence[NDArray[np.float32]], instances: Instances) -> None:
        for row, identifier in enumerate(instances.ids):
            if not all(np.isfinite(output[row]).all() for output in outputs):
                image = instances.images[instances.image_indices[row]].file_name
                raise InputError(
                    f"model {self.spec.name}: the network's output for person {identifier} in {image} is not finite. "
                    "Its weights are damaged, or it overflows in this precision."
                )
