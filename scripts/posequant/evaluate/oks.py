"""OKS between two sets of poses of the same people, and how far their keypoints are apart.

The one place where the loss of a network is defined: 1 - the mean over people of the OKS of its poses, with those of
the FP32 network in the place of the truth. It needs no annotations. The steps of a recipe, the attribution and the
certificate all take it from here. Where the dataset has no sigmas, `similarity` without them is in the place of OKS
throughout: the loss is the normalised mean error to FP32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.data.dataset import AREA_OF_BOX
from posequant.evaluate.keypoint_metrics import KEYPOINT_SCORE_THRESHOLD
from posequant.evaluate.predictions import Predictions

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """How far the poses of N people are from those of a reference.

    Attributes:
        oks: of each person, with the reference in the place of the truth, float64 (N,); NaN where the reference is sure
            of no keypoint.
        pixels: distance of each keypoint, in pixels of the image, float64 (N, K).
        counted: which keypoints count, those that the reference is sure of, bool (N, K).
        areas: of the people, in square pixels, float64 (N,).
    """

    oks: Floats
    pixels: Floats
    counted: NDArray[np.bool_]
    areas: Floats

    @property
    def mean_oks(self) -> float | None:
        """The mean of OKS over people; None where the reference is sure of no keypoint of any."""
        known = self.oks[~np.isnan(self.oks)]
        return float(known.mean()) if len(known) else None


def similarity(
    keypoints: NDArray[Any], truth: NDArray[Any], areas: NDArray[Any], sigmas: Sequence[float] | None
) -> Floats:
    """Return how well each keypoint agrees, 0 to 1: exp(-d² / (2 area (2 sigma)²)), whose mean is OKS.

    Without sigmas it is 1 - d / √area, and 0 at least: then 1 - the mean is the normalised mean error (NME), where no
    keypoint is farther off than the person is large.

    Source: COCO's keypoint evaluation, as in pycocotools' `computeOks`.

    Args:
        keypoints: (..., K, 2), in pixels.
        truth: the same.
        areas: areas of the people, (...), in square pixels.
        sigmas: falloff for each of the K keypoints; None where the dataset has none.

    Returns:
        float64 (..., K).
    """
    squared = ((np.asarray(keypoints, np.float64) - truth) ** 2).sum(axis=-1)
    size = np.asarray(areas, np.float64)[..., np.newaxis] + np.spacing(1)
    if sigmas is None:
        return np.asarray(1 - np.minimum(np.sqrt(squared / size), 1))
    spread = (2 * np.array(sigmas, np.float32).astype(np.float64)) ** 2
    agreement: Floats = np.exp(-squared / spread / size / 2)
    return agreement


def pose_shift(
    keypoints: NDArray[np.float32],
    reference: NDArray[np.float32],
    reference_scores: NDArray[np.float32],
    bboxes: NDArray[np.float32],
    sigmas: Sequence[float] | None,
) -> Shift:
    """Compare the poses of N people with those of a reference.

    Keypoints count whose score in the reference is above 0.2, mmpose's threshold for a keypoint to count in a score. As
    no annotation is looked at, a person's area is 0.53 times that of the box, as mmpose takes it.

    Args:
        keypoints: float32 (N, K, 2), in pixels of the image.
        reference: the same.
        reference_scores: of the reference's keypoints, float32 (N, K).
        bboxes: the people's boxes, float32 (N, 4); left, top, right, bottom in pixels of the image.
        sigmas: as for `similarity`.
    """
    boxes = bboxes.astype(np.float64)
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * AREA_OF_BOX, 1)
    counted = reference_scores > KEYPOINT_SCORE_THRESHOLD
    number = counted.sum(axis=1)
    agreement = (similarity(keypoints, reference, areas, sigmas) * counted).sum(axis=1)
    oks = np.full(len(boxes), np.nan)
    np.divide(agreement, number, out=oks, where=number > 0)
    return Shift(oks, np.linalg.norm(keypoints.astype(np.float64) - reference, axis=2), counted, areas)


def shift_of_predictions(reference: Predictions, candidate: Predictions) -> Shift:
    """Compare two predictions of the same people, in the same order; see `pose_shift`."""
    theirs, sigmas = reference.poses, reference.keypoints.sigmas
    return pose_shift(candidate.poses.keypoints, theirs.keypoints, theirs.keypoint_scores, reference.bboxes, sigmas)
