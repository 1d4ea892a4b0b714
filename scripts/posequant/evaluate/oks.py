"""OKS between two sets of poses of the same people, and how far their keypoints are apart."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.data.dataset import keypoint_sigmas
from posequant.evaluate.keypoint_metrics import KEYPOINT_SCORE_THRESHOLD
from posequant.evaluate.predictions import Predictions

Floats = NDArray[np.float64]

# A person's area by that of the box, where it is not annotated (mmpose 1.3.2, base_coco_style_dataset.py).
AREA_OF_BOX = 0.53


@dataclass(frozen=True)
class LabelFreeCost:
    """How far keypoints moved, measured without annotations.

    Keypoints that the reference is unsure of do not count, nor people without any other.

    Attributes:
        people: how many people count.
        keypoints: how many of their keypoints.
        oks: mean over people of the OKS of the candidate with the reference in the place of the truth.
        pixels: distance between the two in pixels of the image: `mean`, `median`, `p95`, the 95th percentile.
        relative: the same as a share of the root of the person's area.
    """

    people: int
    keypoints: int
    oks: float | None
    pixels: dict[str, float] | None
    relative: dict[str, float] | None


def similarity(keypoints: NDArray[Any], truth: NDArray[Any], areas: NDArray[Any]) -> Floats:
    """Return how well each keypoint agrees, 0 to 1: exp(-d² / (2 area (2 sigma)²)), whose mean is OKS.

    Source: COCO's keypoint evaluation, as in pycocotools' `computeOks`.

    Args:
        keypoints: (..., 17, 2), in pixels.
        truth: the same.
        areas: areas of the people, (...), in square pixels.

    Returns:
        float64 (..., 17).
    """
    squared = ((np.asarray(keypoints, np.float64) - truth) ** 2).sum(axis=-1)
    spread = (2 * keypoint_sigmas().astype(np.float64)) ** 2
    agreement: Floats = np.exp(-squared / spread / (np.asarray(areas, np.float64)[..., np.newaxis] + np.spacing(1)) / 2)
    return agreement


def mean_oks(
    keypoints: NDArray[Any], truth: NDArray[Any], areas: NDArray[Any], counted: NDArray[np.bool_]
) -> float | None:
    """Return the mean of OKS over people, as `similarity` takes them.

    Args:
        keypoints: (N, 17, 2), in pixels.
        truth: the same.
        areas: areas of the people, (N,), in square pixels.
        counted: which keypoints count, (N, 17); people without any do not. None where nobody does.
    """
    people = counted.any(axis=1)
    if not people.any():
        return None
    agreement = similarity(keypoints, truth, areas) * counted
    return float((agreement.sum(axis=1)[people] / counted.sum(axis=1)[people]).mean())


def label_free_cost(reference: Predictions, candidate: Predictions) -> LabelFreeCost:
    """Compare the keypoints of two predictions of the same people, in the same order.

    Those count whose score in the reference is above 0.2, mmpose's threshold for a keypoint to count in a score. As
    there are no annotations, a person's area is 0.53 times that of the box, as mmpose takes it.
    """
    boxes = reference.bboxes.astype(np.float64)
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * AREA_OF_BOX, 1)
    sure = reference.poses.keypoint_scores > KEYPOINT_SCORE_THRESHOLD
    counted = sure.any(axis=1)
    if not counted.any():
        return LabelFreeCost(0, 0, None, None, None)
    ours, theirs = candidate.poses.keypoints, reference.poses.keypoints
    pixels = np.linalg.norm(ours.astype(np.float64) - theirs, axis=2)
    relative = pixels / np.sqrt(areas)[:, np.newaxis]
    return LabelFreeCost(
        people=int(counted.sum()),
        keypoints=int(sure.sum()),
        oks=mean_oks(ours, theirs, areas, sure),
        pixels=_spread(pixels[sure]),
        relative=_spread(relative[sure]),
    )


def _spread(values: Floats) -> dict[str, float]:
    median, high = np.percentile(values, [50, 95])
    return {"mean": float(values.mean()), "median": float(median), "p95": float(high)}
