"""What AP a network loses on labelled people, or PCK where there are no sigmas, and how sure that is."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.keypoints import COCO, KeypointSet
from posequant.base.measures import PCK
from posequant.data.crop_files import People
from posequant.data.dataset import Annotations, index_annotations
from posequant.evaluate.bootstrap import Counts, average_precision, match
from posequant.evaluate.distances import Distances, longer_sides
from posequant.evaluate.keypoint_metrics import person_scores

Floats = NDArray[np.float32]


class PrecisionLoss:
    """AP of N labelled people, each in an image of its own, beside that of a reference.

    Of people nobody is missed or found twice, so AP is higher than in their images; the difference of two networks is
    what it is for. Where the keypoints have no sigmas, PCK is in the place of AP.
    """

    def __init__(
        self, people: People, keypoints: Floats, scores: Floats, draws: Counts, found: KeypointSet = COCO
    ) -> None:
        """Match the poses of the reference with the labels.

        Args:
            people: the N people.
            keypoints: the reference's, float32 (N, K, 2), in pixels of the image.
            scores: theirs, float32 (N, K).
            draws: how often each of B draws has each person, int32 (B, N).
            found: the K keypoints.

        Raises:
            InputError: nobody has a labelled keypoint.
        """
        if not people.visible.any():
            raise InputError("none of the people that AP is measured on has a labelled keypoint. Calibrate on others.")
        self._people, self._found, self._draws = people, found, draws
        self._annotations = _annotations(people, found)
        self._reference = self._precision(keypoints, scores)

    def __call__(self, keypoints: Floats, scores: Floats) -> NDArray[np.float64]:
        """Return the AP that another network's poses of the same people lose in each draw, float64 (B,).

        It is NaN in draws without anybody to find.
        """
        return self._reference - self._precision(keypoints, scores)

    def _precision(self, keypoints: Floats, scores: Floats) -> NDArray[np.float64]:
        if self._found.sigmas is None:
            return self._distances(keypoints).statistics(self._draws)[PCK.score]
        triplets = np.concatenate([keypoints, scores[..., np.newaxis]], axis=2)
        results = [
            {
                "image_id": number,
                "category_id": self._annotations.categories[0],
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

    def _distances(self, keypoints: Floats) -> Distances:
        sizes = longer_sides(self._people.bboxes)
        pixels = np.linalg.norm(keypoints.astype(np.float64) - self._people.keypoints, axis=2)
        return Distances(pixels=pixels, counted=self._people.visible, sizes=sizes, units=sizes)


def _annotations(people: People, found: KeypointSet) -> Annotations:
    """Return COCO annotations in which each person is alone in an image."""
    annotated = [
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
            zip(people.keypoints, people.visible, people.areas, strict=True), start=1
        )
    ]
    content = {
        "images": [{"id": person["id"]} for person in annotated],
        "annotations": annotated,
        "categories": [{"id": 1, "name": "person"}],
    }
    return Annotations(Path("people.npz"), index_annotations(content), (1,), (), found)
