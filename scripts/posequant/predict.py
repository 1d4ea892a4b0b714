"""Keypoints of every person of a dataset, by any backend."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posequant.crops import Cropper
from posequant.dataset import (
    Instances,
    detected_instances,
    ground_truth_instances,
    load_annotations,
    read_image,
    require_images,
)
from posequant.decode import Decoder, average_with_mirrored, mirror
from posequant.errors import InputError
from posequant.files import require_file, sha256, whole
from posequant.model_spec import ModelSpec
from posequant.networks import open_network
from posequant.networks.base import Network

# People that one thread takes at a time: enough for a batch, and few enough to keep all threads busy to the end.
CHUNK = 8

_PACKAGE = {"pytorch": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn"}


@dataclass(frozen=True)
class Poses:
    """Predicted poses of N people, in the order of the instances.

    Attributes:
        keypoints: float32 (N, 17, 2), in pixels of the image.
        keypoint_scores: float32 (N, 17).
        centers: centres of the crops in the image, float32 (N, 2), in pixels.
        scales: their widths and heights, float32 (N, 2), in pixels.
    """

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    centers: NDArray[np.float32]
    scales: NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """Poses with what is needed to score them, and where they come from.

    Attributes:
        ids, image_ids: int64 (N,), as in `Instances`.
        bboxes, bbox_scores: float32 (N, 4) and (N,), as in `Instances`.
        poses: the predicted poses.
        identity: what was predicted, by what, from what: JSON.
    """

    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    bboxes: NDArray[np.float32]
    bbox_scores: NDArray[np.float32]
    poses: Poses
    identity: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write an .npz file; the same predictions give the same bytes."""
        with whole(path) as draft:
            np.savez(
                draft,
                allow_pickle=False,
                ids=self.ids,
                image_ids=self.image_ids,
                bboxes=self.bboxes,
                bbox_scores=self.bbox_scores,
                **vars(self.poses),
                identity=np.array(json.dumps(self.identity, ensure_ascii=False)),
            )

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote; `InputError` if it is damaged or something else."""
        try:
            with np.load(require_file(path)) as archive:
                content = {name: archive[name] for name in archive.files}
            identity = json.loads(str(content.pop("identity")))
            poses = Poses(**{name: content.pop(name) for name in Poses.__annotations__})
            return cls(**content, poses=poses, identity=identity)
        except (BadZipFile, EOFError, KeyError, OSError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a file of predictions, or damaged. Delete it and run again.") from error


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
) -> Predictions:
    """Predict the pose of every person of an evaluation set.

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

    Raises:
        InputError: an input is missing, damaged or does not fit the others.
    """
    spec = ModelSpec.load(model)
    annotated = load_annotations(annotations)
    instances = detected_instances(annotated, detections) if detections else ground_truth_instances(annotated)
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
        "versions": {name: version(name) for name in (_PACKAGE[backend], "mmpose", "numpy", "opencv-python-headless")},
    }
    network = open_network(backend, precision, artifacts, spec, threads)
    return Predictions(
        ids=instances.ids,
        image_ids=instances.image_ids,
        bboxes=instances.bboxes,
        bbox_scores=instances.bbox_scores,
        poses=predict_poses(network, spec, instances, images, flip_test, threads),
        identity=identity,
    )


def predict_poses(
    network: Network, spec: ModelSpec, instances: Instances, images: Path, flip_test: bool, threads: int
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
    # Image by image, whatever the order of the boxes, so that an image is read once.
    order = np.argsort(instances.image_indices, kind="stable")
    chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    parts = []
    with (
        tqdm(total=len(order), desc="predicting", unit="person", mininterval=2) as progress,
        ThreadPoolExecutor(threads) as executor,
    ):
        for part in executor.map(worker.predict, map(instances.select, chunks)):
            parts.append(part)
            progress.update(len(part.keypoints))
    back = np.argsort(order, kind="stable")
    return Poses(*(np.concatenate(columns)[back] for columns in zip(*(vars(p).values() for p in parts), strict=True)))


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
