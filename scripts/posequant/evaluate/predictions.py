"""Predictions as a file, and shards of them as one."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import require_file, sha256, whole
from posequant.data.dataset import NUM_KEYPOINTS, Instances, evaluation_instances


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

    @classmethod
    def empty(cls, count: int) -> "Poses":
        """Return room for the poses of `count` people."""
        shapes = [(NUM_KEYPOINTS, 2), (NUM_KEYPOINTS,), (2,), (2,)]
        return cls(*(np.empty((count, *shape), np.float32) for shape in shapes))

    def put(self, rows: NDArray[np.int64], poses: "Poses") -> None:
        """Write `poses` into `rows`."""
        for name, values in vars(poses).items():
            getattr(self, name)[rows] = values


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
    instances = evaluation_instances(annotations, detections)
    _require_each_once(instances, shards, parts)
    row_of = {identifier: row for row, identifier in enumerate(instances.ids.tolist())}
    poses = Poses.empty(len(instances))
    for part in parts:
        poses.put(np.array([row_of[identifier] for identifier in part.ids.tolist()], np.int64), part.poses)
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
                f"{', '.join(map(str, shards))}: {len(people)} of {len(expected)} people {fault}: {_some(people)}. "
                "Give every shard of one number of shards, each once."
            )


def _some(people: Iterable[int]) -> str:
    first, *rest = sorted(people)
    return ", ".join(map(str, [first, *rest[:2]])) + (" ..." if len(rest) > 2 else "")
