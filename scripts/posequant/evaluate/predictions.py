"""Predictions as a file, and shards of them as one."""

import json
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from posequant.base.errors import InputError
from posequant.base.files import require_file, sha256, whole
from posequant.base.keypoints import COCO, KeypointSet
from posequant.data.dataset import (
    Annotations,
    Instances,
    evaluation_instances,
    first_of,
    ground_truth_instances,
)

# Beyond it, in pixels, no network finds a keypoint: crops are near their images.
_FARTHEST = 1e9


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True)


class _Protocol(_Checked):
    boxes: Literal["ground-truth", "detections"]
    flip_test: bool
    # Of a subset only.
    people: int | None = None
    seed: int | None = None


class _Hashes(_Checked):
    model: str
    artifact: dict[str, str]
    annotations: str
    detections: str | None


class _Device(_Checked):
    name: str
    kind: str


class Identity(_Checked):
    """What the identity of predictions has, at least, and so have metrics."""

    model: str
    variant: str
    backend: str
    precision: str
    protocol: _Protocol
    instances: int
    sha256: _Hashes
    versions: dict[str, str]
    # Of rows that do not run on the CPU.
    device: _Device | None = None


@dataclass(frozen=True)
class Poses:
    """Predicted poses of N people, in the order of the instances.

    Attributes:
        keypoints: float32 (N, K, 2), in pixels of the image.
        keypoint_scores: float32 (N, K).
        centers: centres of the crops in the image, float32 (N, 2), in pixels.
        scales: their widths and heights, float32 (N, 2), in pixels.
    """

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    centers: NDArray[np.float32]
    scales: NDArray[np.float32]

    @classmethod
    def empty(cls, count: int, keypoints: int) -> "Poses":
        """Return room for the poses of `count` people of so many keypoints."""
        return cls(*(np.empty((count, *shape), np.float32) for shape in _rows(keypoints).values()))

    def put(self, rows: NDArray[np.int64], poses: "Poses") -> None:
        """Write `poses` into `rows`."""
        for name, values in vars(poses).items():
            getattr(self, name)[rows] = values

    def unsound(self) -> NDArray[np.bool_]:
        """Return whose poses hold NaN, which COCO scores as found, infinity or what is far off, bool (N,)."""
        sound = np.ones(len(self.keypoints), bool)
        for values in vars(self).values():
            sound &= (np.abs(values) <= _FARTHEST).all(axis=tuple(range(1, values.ndim)))
        return ~sound


def _rows(keypoints: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of a row of each array of `Poses`."""
    return {"keypoints": (keypoints, 2), "keypoint_scores": (keypoints,), "centers": (2,), "scales": (2,)}


def device_in(identity: Mapping[str, Any]) -> str | None:
    """Return the name of the device in the identity of predictions, or in metrics; None where it is the CPU."""
    device = identity.get("device")
    return device["name"] if device else None


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

    @property
    def keypoints(self) -> KeypointSet:
        """What the poses have; COCO's where the identity does not say it."""
        content = self.identity.get("keypoints")
        return COCO if content is None else KeypointSet.of(content)

    @property
    def device(self) -> str | None:
        """The name of the device that the network ran on; None for the CPU."""
        return device_in(self.identity)

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
        """Read what `save` wrote.

        Raises:
            InputError: it is damaged or something else; a person is there twice; a value is not finite.
        """
        try:
            with np.load(require_file(path)) as archive:
                content = {name: archive[name] for name in archive.files}
            identity = json.loads(str(content.pop("identity")))
            poses = Poses(**{name: content.pop(name) for name in Poses.__annotations__})
            found = cls(**content, poses=poses, identity=identity)
            found._require_form()
        except _UNREADABLE as error:
            raise InputError(f"{path}: not a file of predictions, or damaged. Delete it and run again.") from error
        if doubled := [person for person, count in Counter(found.ids.tolist()).items() if count > 1]:
            raise InputError(f"{path}: people are there more than once: {first_of(doubled)}. Predict again.")
        boxes = np.hstack([found.bboxes, found.bbox_scores[:, np.newaxis]])
        unsound = poses.unsound() | ~np.isfinite(boxes).all(axis=1)
        if unsound.any():
            raise InputError(
                f"{path}: the predictions hold numbers that are not finite, or far beyond all images, for people "
                f"{first_of(found.ids[unsound].tolist())}. Predict again."
            )
        return found

    def _require_form(self) -> None:
        """Raise `ValueError` unless arrays and identity have the types, shapes and keys that are said."""
        of_poses = _rows(len(self.keypoints))
        forms: dict[str, tuple[type, tuple[int, ...]]] = {
            "ids": (np.int64, ()),
            "image_ids": (np.int64, ()),
            "bboxes": (np.float32, (4,)),
            "bbox_scores": (np.float32, ()),
            **{name: (np.float32, row) for name, row in of_poses.items()},
        }
        count = len(self.ids)
        for name, (kind, row) in forms.items():
            values = getattr(self.poses if name in of_poses else self, name)
            if values.dtype != kind or values.shape != (count, *row):
                raise ValueError(f"{name} is {values.dtype} {values.shape}")
        Identity.model_validate(self.identity)


# What numpy, zipfile and json raise at files that are damaged.
_UNREADABLE = (
    *(BadZipFile, EOFError, KeyError, OSError, TypeError, ValueError, AttributeError, zlib.error, MemoryError),
    *(NotImplementedError, RuntimeError, struct.error),
)


def merge_predictions(shards: Sequence[Path], annotations: Path, detections: Path | None) -> Predictions:
    """Put the shards of an evaluation set together, in its order.

    Args:
        shards: files that `Predictions.save` wrote, in any order.
        annotations: the COCO keypoint annotations that were predicted for.
        detections: the detection results whose boxes were taken, if they were.

    Raises:
        InputError: a shard is missing, damaged, or made otherwise than the first or for another evaluation set; a
            person is in none of them, or twice. The message names the files or people.
    """
    parts = [Predictions.load(path) for path in shards]
    identity = parts[0].identity
    for path, part in zip(shards, parts, strict=True):
        if differing := [key for key in identity if part.identity.get(key) != identity[key]]:
            raise InputError(
                f"{shards[0]} and {path} are not shards of one whole: they differ in {', '.join(differing)}. "
                "Delete the older and run again."
            )
    for name, file in {"annotations": annotations, "detections": detections}.items():
        if identity["sha256"][name] != (sha256(file) if file else None):
            raise InputError(f"{shards[0]}: made for other {name} than {file or 'none'}. Predict again.")
    instances = evaluation_instances(annotations, detections, parts[0].keypoints)
    _require_each_once(instances, shards, parts)
    row_of = {identifier: row for row, identifier in enumerate(instances.ids.tolist())}
    poses = Poses.empty(len(instances), len(parts[0].keypoints))
    for path, part in zip(shards, parts, strict=True):
        rows = np.array([row_of[identifier] for identifier in part.ids.tolist()], np.int64)
        if not np.array_equal(part.bboxes, instances.bboxes[rows]):
            raise InputError(f"{path}: made for other boxes than those of the evaluation set. Predict again.")
        poses.put(rows, part.poses)
    return Predictions(
        ids=instances.ids,
        image_ids=instances.image_ids,
        bboxes=instances.bboxes,
        bbox_scores=instances.bbox_scores,
        poses=poses,
        identity=identity,
    )


def _require_each_once(instances: Instances, shards: Sequence[Path], parts: Sequence[Predictions]) -> None:
    expected = set(instances.ids.tolist())
    counts = Counter(identifier for part in parts for identifier in part.ids.tolist())
    faults = {
        "are missing": expected - counts.keys(),
        "are there more than once": {identifier for identifier, count in counts.items() if count > 1},
        "are not of the evaluation set": counts.keys() - expected,
    }
    for fault, people in faults.items():
        if people:
            raise InputError(
                f"{', '.join(map(str, shards))}: {len(people)} of {len(expected)} people {fault}: "
                f"{first_of(sorted(people))}. Give every shard of one number of shards, each once."
            )


def require_everyone(predictions: Predictions, path: Path, annotations: Annotations) -> None:
    """Raise `InputError` unless predictions are those of all people of these annotations, nobody else's.

    With detected boxes their number is compared, and their images; who they are, `merge_predictions` has compared.

    Args:
        predictions: whole, not a shard.
        path: their file, for the message.
        annotations: that they were made for, unless they were made for others.
    """
    if predictions.identity["sha256"]["annotations"] != sha256(annotations.path):
        raise InputError(f"{path}: made for other annotations than {annotations.path}. Predict again.")
    instances, found = predictions.identity["instances"], len(predictions.ids)
    if found != instances:
        raise InputError(f"{path}: holds {found} people, but says that it was made for {instances}. Predict again.")
    if strangers := set(predictions.image_ids.tolist()) - {image.id for image in annotations.images}:
        raise InputError(
            f"{path}: predictions in images that {annotations.path} does not have: {first_of(sorted(strangers))}. "
            "Predict again."
        )
    if predictions.identity["protocol"]["boxes"] != "ground-truth":
        return
    people = ground_truth_instances(annotations)
    for name in ("ids", "image_ids", "bboxes"):
        if not np.array_equal(getattr(predictions, name), getattr(people, name)):
            raise InputError(
                f"{path}: the {name.replace('_', ' ')} are not those of {annotations.path}. Predict again."
            )
