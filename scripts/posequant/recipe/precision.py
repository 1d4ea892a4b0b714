"""What AP a network loses on labelled people, and how sure that is."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.data.crop_files import Labels
from posequant.data.dataset import Annotations, index_annotations
from posequant.evaluate.bootstrap import average_precision, draw_images, interval, match
from posequant.evaluate.keypoint_metrics import person_scores

Floats = NDArray[np.float32]

RESAMPLES, CONFIDENCE = 1000, 0.95


@dataclass(frozen=True)
class Loss:
    """A loss of AP.

    Attributes:
        estimate: AP of the reference less that of the candidate.
        interval: its confidence interval, by a paired bootstrap over people; None where nobody is to be found.
    """

    estimate: float
    interval: tuple[float, float] | None


class PrecisionLoss:
    """AP of N labelled people, each in an image of its own, beside that of a reference.

    Of people nobody is missed or found twice, so AP is higher than in their images; the difference of two networks is
    what it is for.
    """

    def __init__(self, labels: Labels, keypoints: Floats, scores: Floats, seed: int = 0) -> None:
        """Match the poses of the reference with the labels.

        Args:
            labels: of the N people.
            keypoints: the reference's, float32 (N, 17, 2), in pixels of the crop.
            scores: theirs, float32 (N, 17).
            seed: of the bootstrap.

        Raises:
            InputError: nobody has a labelled keypoint.
        """
        if not labels.visible.any():
            raise InputError("none of the people that AP is measured on has a labelled keypoint. Calibrate on others.")
        self._annotations = _annotations(labels)
        everyone = np.ones((1, len(scores)), np.int32)
        self._draws = np.concatenate([everyone, draw_images(len(scores), RESAMPLES, seed)])
        self._reference = self._precision(keypoints, scores)

    def __call__(self, keypoints: Floats, scores: Floats) -> Loss:
        """Return what another network's poses of the same people lose."""
        losses = self._reference - self._precision(keypoints, scores)
        return Loss(float(losses[0]), interval(losses[1:], CONFIDENCE))

    def _precision(self, keypoints: Floats, scores: Floats) -> NDArray[np.float64]:
        """Return AP of everyone and in each draw, float64 (1 + B,)."""
        triplets = np.concatenate([keypoints, scores[..., np.newaxis]], axis=2)
        results = [
            {
                "image_id": number,
                "category_id": self._annotations.person_category,
                "keypoints": triplet.ravel().tolist(),
                "score": float(score),
            }
            for number, (triplet, score) in enumerate(
                zip(triplets, person_scores(np.ones(len(scores), np.float32), scores), strict=True), start=1
            )
        ]
        matches = match(self._annotations, results)["all"]
        precision: NDArray[np.float64] = average_precision(matches, self._draws)[0].mean(axis=1)
        return precision


def _annotations(labels: Labels) -> Annotations:
    """Return COCO annotations in which each person is alone in an image, the crop."""
    people = [
        {
            "id": number,
            "image_id": number,
            "category_id": 1,
            "iscrowd": 0,
            "area": float(area),
            "bbox": [0, 0, 1, 1],
            "num_keypoints": int(visible.sum()),
            "keypoints": np.column_stack([keypoints, 2 * visible]).ravel().tolist(),
        }
        for number, (keypoints, visible, area) in enumerate(
            zip(labels.keypoints, labels.visible, labels.areas, strict=True), start=1
        )
    ]
    content = {
        "images": [{"id": person["id"]} for person in people],
        "annotations": people,
        "categories": [{"id": 1, "name": "person"}],
    }
    return Annotations(Path("labels"), index_annotations(content), 1, ())
