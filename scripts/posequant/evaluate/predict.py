"""Keypoints of every person of a dataset, by any backend."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import as_made, installed
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
from posequant.data.evaluation_crops import open_crops
from posequant.evaluate.decode import Decoder, average_with_mirrored, mirror
from posequant.evaluate.predictions import Poses, Predictions
from posequant.networks.base import Network
from posequant.networks.opening import device_record, open_network

_PACKAGES = {
    "pytorch": ("torch", "mmpose"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "ncnn": ("ncnn",),
    "ncnn-vulkan": ("ncnn",),
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
    crops: Path | None = None,
    shard: int = 1,
    shards: int = 1,
    device: str | None = None,
) -> Predictions:
    """Predict the pose of every person of an evaluation set, or of one shard of it.

    Args:
        model: the model description, `model.json`.
        variant: name of the row that the predictions belong to.
        backend: see `open_network`, as for `precision` and `artifacts`.
        precision: the arithmetic.
        artifacts: files of the network, as for `as_made`.
        images: folder of the images.
        annotations: COCO keypoint annotations of the evaluation set.
        detections: COCO detection results whose boxes are taken in place of the annotated ones.
        flip_test: whether to average with the prediction for the mirrored crop.
        threads: how many threads work; the result does not depend on it.
        crops: where `keep_crops` wrote the people's crops; without, they are cut out of the images.
        shard: which of the shards to predict, from 1; their identity is that of the whole.
        shards: how many there are.
        device: see `open_network`.

    Raises:
        InputError: an input is missing, damaged or does not fit the others; there is no such shard or device.
    """
    spec, made = ModelSpec.load(model), as_made(artifacts)
    instances = evaluation_instances(annotations, detections, spec.keypoints)
    identity = identify(
        spec=spec,
        variant=variant,
        backend=backend,
        precision=precision,
        instances=instances,
        flip_test=flip_test,
        made=made,
        files={"model": model, "annotations": annotations, "detections": detections},
        # Not PoseQuant's own: shards of two versions belong together where the step is the same in both.
        versions=installed(*_PACKAGES[backend], "numpy", "opencv-python-headless"),
    )
    if not crops:  # whoever kept them has said and done that
        say_notices(instances)
        require_sizes(images, instances, shard, shards)
    instances = shard_of(instances, shard, shards)
    source = open_crops(crops, spec, instances) if crops else None
    network = open_network(backend, precision, list(made), spec, threads, device=device)
    if found := device_record(network):
        identity["device"] = found
    return Predictions(
        ids=instances.ids,
        image_ids=instances.image_ids,
        bboxes=instances.bboxes,
        bbox_scores=instances.bbox_scores,
        poses=predict_poses(
            network,
            spec,
            instances,
            source or crops_of_images(Cropper(spec), instances, images),
            flip_test=flip_test,
            threads=threads,
        ),
        identity=identity,
    )


def identify(
    *,
    spec: ModelSpec,
    variant: str,
    backend: str,
    precision: str,
    instances: Instances,
    flip_test: bool,
    made: Mapping[Path, str],
    files: Mapping[str, Path | None],
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Return the identity of predictions.

    Args:
        spec: the model description.
        variant: name of the row that they belong to.
        backend: the runtime.
        precision: the arithmetic.
        instances: the people of the whole evaluation set.
        flip_test: whether predictions are averaged with those for the mirrored crops.
        made: the network's files, and the SHA-256 of each.
        files: the files of the `model` description and of the `annotations`, and `detections` where they gave the
            boxes, else None.
        versions: of what the network ran in.
    """
    subset = instances.subset
    return {
        "model": spec.name,
        "variant": variant,
        "backend": backend,
        "precision": precision,
        "protocol": {
            "boxes": "detections" if files["detections"] else "ground-truth",
            "flip_test": flip_test,
            **({"people": subset.people, "seed": subset.seed} if subset else {}),
        },
        "keypoints": spec.keypoints.listed(),
        "instances": len(instances),
        "sha256": {
            "model": _sha256_of(files["model"]),
            "artifact": {path.name: digest for path, digest in made.items()},
            "annotations": _sha256_of(files["annotations"]),
            "detections": _sha256_of(files["detections"]),
        },
        "versions": dict(versions),
    }


def _sha256_of(path: Path | None) -> str | None:
    return sha256(path) if path else None


def predict_poses(
    network: Network,
    spec: ModelSpec,
    instances: Instances,
    crops: Crops,
    *,
    flip_test: bool,
    threads: int,
    show_progress: bool = True,
) -> Poses:
    """Predict the pose of each of `instances`, which `crops` gives the crops of.

    Each thread takes, infers and decodes `CHUNK` people at a time, so that while one reads another infers. A chunk that
    waits holds no pixels: memory grows with the threads, not with the dataset.

    Raises:
        InputError: an image is missing or damaged; the network's output does not fit the codec or is not finite.
    """
    cropper = Cropper(spec)
    worker = _Worker(network, spec, crops, cropper, PoseReader(spec, instances), flip_test)
    order = by_image(instances)
    chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    poses = Poses.empty(len(order), len(spec.keypoints))
    with (
        tqdm(total=len(order), desc="predicting", unit="person", mininterval=2, disable=not show_progress) as progress,
        ThreadPoolExecutor(threads) as executor,
    ):
        for chunk, found in zip(chunks, executor.map(worker.predict, chunks), strict=True):
            poses.put(chunk, found)
            progress.update(len(chunk))
    return poses


class PoseReader:
    """Reads a network's outputs for people of an evaluation set. Thread-safe."""

    def __init__(self, spec: ModelSpec, instances: Instances) -> None:
        """Take the model description and the people; `InputError` as `Decoder`."""
        self._spec = spec
        self._instances = instances
        self._cropper = Cropper(spec)
        self._decoder = Decoder(spec)

    def read(self, outputs: Sequence[NDArray[np.float32]], people: NDArray[np.int64]) -> Poses:
        """Return the poses that outputs show.

        Args:
            outputs: as `Network.forward` returns them, a row for each of the people.
            people: their indices among the instances, int64 (N,).

        Raises:
            InputError: an output does not fit the codec or is not finite, or a pose is far beyond all images.
        """
        self._require_finite(outputs, people)
        places = self._cropper.frame(self._instances.bboxes[people])
        poses = Poses(*self._decoder.decode(outputs, *places), *places)
        if (unsound := poses.unsound()).any():
            raise InputError(
                f"model {self._spec.name}: the pose of {self._name(people[unsound][0])} is not finite, or far beyond "
                "all images. The box is too small, or the network's output is not what its codec reads."
            )
        return poses

    def _require_finite(self, outputs: Sequence[NDArray[np.float32]], people: NDArray[np.int64]) -> None:
        if all(np.isfinite(output).all() for output in outputs):
            return
        for row, person in enumerate(people):
            if not all(np.isfinite(output[row]).all() for output in outputs):
                raise InputError(
                    f"model {self._spec.name}: the network's output for {self._name(person)} is not finite. Its "
                    "weights are damaged, or it overflows in this precision."
                )

    def _name(self, person: np.int64) -> str:
        image = self._instances.images[self._instances.image_indices[person]].file_name
        return f"person {self._instances.ids[person]} in {image}"


@dataclass(frozen=True)
class _Worker:
    """What the threads share."""

    network: Network
    spec: ModelSpec
    crops: Crops
    cropper: Cropper
    reader: PoseReader
    flip_test: bool

    def predict(self, chunk: NDArray[np.int64]) -> Poses:
        return self.reader.read(self._infer(self.cropper.normalise(self.crops(chunk))), chunk)

    def _infer(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        outputs = self.network.forward(crops)
        if not self.flip_test:
            return outputs
        return average_with_mirrored(outputs, self.network.forward(mirror(crops)), self.spec)
