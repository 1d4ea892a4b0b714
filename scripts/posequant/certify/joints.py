"""Where the keypoints of two predictions of the same people differ: joint by joint, and without any annotation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.data.dataset import NUM_KEYPOINTS, Annotations, keypoint_names, keypoint_sigmas
from posequant.evaluate.bootstrap import Comparison, Counts, Floats, interval
from posequant.evaluate.keypoint_metrics import KEYPOINT_SCORE_THRESHOLD
from posequant.evaluate.predictions import Predictions

# A person's area by that of the box, where it is not annotated (mmpose 1.3.2, base_coco_style_dataset.py).
AREA_OF_BOX = 0.53


@dataclass(frozen=True)
class JointCost:
    """What becomes of one joint.

    Attributes:
        name: COCO's name of it.
        labelled: how many people have it annotated.
        similarity: its mean part in OKS over those people, of both predictions.
    """

    name: str
    labelled: int
    similarity: Comparison


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


def joint_costs(
    annotations: Annotations, reference: Predictions, candidate: Predictions, draws: Counts, confidence: float
) -> list[JointCost]:
    """Compare how well each joint is found, over all annotated people who count.

    A person's prediction is the one for the annotated box; with detected boxes the one for the box in which the
    reference comes nearest, for both.

    Args:
        annotations: the annotated people.
        reference: the predictions of the FP32 network.
        candidate: those of the INT8 network, of the same people.
        draws: how often each draw has each image, int32 (B, I), in ascending order of the image ids.
        confidence: of the intervals.
    """
    image_ids = sorted(image.id for image in annotations.images)
    index_of = {identifier: index for index, identifier in enumerate(image_ids)}
    labelled = np.zeros((len(image_ids), NUM_KEYPOINTS))
    sums = np.zeros((2, len(image_ids), NUM_KEYPOINTS))
    rows_of_image = _rows_by(reference.image_ids)
    row_of_person = {}
    if reference.identity["protocol"]["boxes"] == "ground-truth":
        row_of_person = {identifier: row for row, identifier in enumerate(reference.ids.tolist())}
    for person in annotations.coco.anns.values():
        if person["category_id"] != annotations.person_category or person["iscrowd"] or not person["num_keypoints"]:
            continue
        rows = rows_of_image.get(person["image_id"], np.empty(0, np.int64))
        if row_of_person:
            rows = np.array([row_of_person[person["id"]]] if person["id"] in row_of_person else [], np.int64)
        if not len(rows):
            continue
        truth = np.array(person["keypoints"], np.float64).reshape(NUM_KEYPOINTS, 3)
        visible = truth[:, 2] > 0
        areas = np.full(len(rows), person["area"])
        of_reference = similarity(reference.poses.keypoints[rows], truth[:, :2], areas)
        nearest = of_reference[:, visible].mean(axis=1).argmax()
        of_candidate = similarity(candidate.poses.keypoints[rows[nearest]], truth[:, :2], areas[nearest])
        image = index_of[person["image_id"]]
        labelled[image] += visible
        sums[0, image] += of_reference[nearest] * visible
        sums[1, image] += of_candidate * visible
    return [
        JointCost(
            name, int(labelled[:, joint].sum()), _compare(sums[..., joint], labelled[:, joint], draws, confidence)
        )
        for joint, name in enumerate(keypoint_names())
    ]


def _compare(sums: Floats, counts: Floats, draws: Counts, confidence: float) -> Comparison:
    if not counts.sum():
        return Comparison(None, None, None, None)
    fp32, int8 = (sums.sum(axis=1) / counts.sum()).tolist()
    drawn = draws @ counts
    differences = np.full(len(draws), np.nan)
    np.divide(draws @ (sums[1] - sums[0]), drawn, out=differences, where=drawn > 0)
    return Comparison(fp32, int8, int8 - fp32, interval(differences, confidence))


def _rows_by(image_ids: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    return {int(identifier): np.flatnonzero(image_ids == identifier) for identifier in np.unique(image_ids)}


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
