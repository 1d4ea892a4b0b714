"""Metrics of distances to the annotated keypoints: PCK, AUC, EPE and NME, and PCKh of MPII.

They need no sigmas. Source of each: mmpose 1.3.2, evaluation/functional/keypoint_eval.py and the evaluators of the same
names in evaluation/metrics/keypoint_2d_metrics.py; tests compare them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.data.dataset import Annotations
from posequant.evaluate.predictions import Predictions

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]

# Of the longer side of a person's box, within which a keypoint counts as found; as in mmpose's configs of hands.
PCK_THRESHOLD = 0.2
# In pixels of the image: AUC is the mean PCK at so many thresholds from 0 to this (mmpose's defaults).
AUC_PIXELS, AUC_THRESHOLDS = 30.0, 20
# Of MPII's head size; keypoints of MPII that do not count, pelvis and thorax.
PCKH_THRESHOLDS, PCKH_LEFT_OUT = {"PCKh": 0.5, "PCKh@0.1": 0.1}, (6, 7)
# The two keypoints whose distance is the unit of NME, by the set's name; elsewhere it is the longer side of the box.
NME_KEYPOINTS = {
    "horse10": (0, 1),
    "300w": (36, 45),
    "coco_wholebody_face": (36, 45),
    "cofw": (8, 9),
    "wflw": (60, 72),
    "lapa": (66, 79),
}


@dataclass(frozen=True)
class Distances:
    """How far the keypoints of N people are from the annotated ones.

    Attributes:
        pixels: in pixels of the image, float64 (N, K).
        counted: which keypoints are annotated, bool (N, K).
        sizes: longer sides of the boxes, float64 (N,), in pixels.
        units: of NME, float64 (N,), in pixels.
        heads: head sizes as MPII has them, float64 (N,), in pixels; None where the annotations do not have them.
    """

    pixels: Floats
    counted: NDArray[np.bool_]
    sizes: Floats
    units: Floats
    heads: Floats | None = None

    def statistics(self, multiplicity: Counts) -> dict[str, Floats]:
        """Return PCK, AUC, EPE and NME, and PCKh where there are head sizes, with everybody as often as is said.

        Args:
            multiplicity: for each of B draws, how often it has each person, int32 (B, N).

        Returns:
            Each float64 (B,): PCK, AUC and PCKh from 0 to 1, EPE in pixels, NME in units. NaN in draws without a
            keypoint to measure.
        """
        times = multiplicity.astype(np.float64)
        boxed = self._by(self.sizes)
        steps = np.arange(AUC_THRESHOLDS) / AUC_THRESHOLDS
        # A threshold lies in float32 distances, as mmpose's.
        everywhere = (self.pixels / AUC_PIXELS).astype(np.float32)
        reached = np.mean([everywhere < step for step in steps], axis=0)
        found = {
            "PCK": _share(*_below(boxed, PCK_THRESHOLD), times),
            "AUC": _share(reached, self.counted, times),
            "EPE": _mean(self.pixels, self.counted, times),
            "NME": _mean(*self._by(self.units), times),
        }
        if self.heads is not None:
            of_heads = self._by(self.heads)
            kept = np.delete(np.arange(self.pixels.shape[1]), PCKH_LEFT_OUT)
            for name, threshold in PCKH_THRESHOLDS.items():
                hits, counted = _below(of_heads, threshold)
                found[name] = _mean(hits[:, kept].astype(np.float64), counted[:, kept], times)
        return found

    def _by(self, units: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return distances in units of each person, and which count: nobody whose unit is 0."""
        return self.pixels / np.where(units > 0, units, 1)[:, np.newaxis], self.counted & (units > 0)[:, np.newaxis]


def distances_of(annotations: Annotations, predictions: Predictions) -> Distances:
    """Measure predictions in annotated boxes.

    Raises:
        InputError: the boxes are detected ones, which do not say whose they are.
    """
    if predictions.identity["protocol"]["boxes"] != "ground-truth":
        raise InputError(
            "distances to annotated keypoints are measured in annotated boxes. Choose protocol: {boxes: ground-truth}."
        )
    people = [annotations.coco.anns[identifier] for identifier in predictions.ids.tolist()]
    keypoints = annotations.keypoints
    truth = np.array([person["keypoints"] for person in people], np.float64).reshape(-1, len(keypoints), 3)
    units = sizes = longer_sides(predictions.bboxes)
    if pair := NME_KEYPOINTS.get(keypoints.name):
        first, second = (truth[:, place, :2] for place in pair)
        units = np.linalg.norm(first - second, axis=1)
    heads = [person.get("head_size") if keypoints.name == "mpii" else None for person in people]
    return Distances(
        pixels=np.linalg.norm(predictions.poses.keypoints - truth[..., :2], axis=2),
        counted=truth[..., 2] > 0,
        sizes=sizes,
        units=units,
        heads=None if None in heads else np.array(heads, np.float64),
    )


def longer_sides(boxes: NDArray[np.float32]) -> Floats:
    """Return the longer sides of boxes (N, 4), left, top, right and bottom, float64 (N,)."""
    corners = boxes.astype(np.float64)
    sides: Floats = (corners[:, 2:] - corners[:, :2]).max(axis=1)
    return sides


def _below(distances: tuple[Floats, NDArray[np.bool_]], threshold: float) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    values, counted = distances
    return values.astype(np.float32) < threshold, counted


def _share(hits: NDArray[Any], counted: NDArray[np.bool_], times: Floats) -> Floats:
    """Return the mean over keypoints of the share of people who have each right, in each draw, float64 (B,).

    A hit may be a part of one, from 0 to 1.
    """
    numbers = times @ counted.astype(np.float64)
    right = times @ np.where(counted, hits, 0).astype(np.float64)
    shares = np.divide(right, numbers, out=np.full(numbers.shape, np.nan), where=numbers > 0)
    known = ~np.isnan(shares)
    return _ratio(np.where(known, shares, 0).sum(axis=1), known.sum(axis=1))


def _mean(values: Floats, counted: NDArray[np.bool_], times: Floats) -> Floats:
    """Return the mean over all keypoints that count, in each draw, float64 (B,)."""
    sums = np.where(counted, values, 0).sum(axis=1)
    return _ratio(times @ sums, times @ counted.sum(axis=1).astype(np.float64))


def _ratio(sums: NDArray[Any], numbers: NDArray[Any]) -> Floats:
    ratios: Floats = np.divide(sums, numbers, out=np.full(len(sums), np.nan), where=numbers > 0)
    return ratios
