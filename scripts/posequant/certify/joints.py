"""How well each joint is found by two predictions of the same people."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posequant.data.dataset import NUM_KEYPOINTS, Annotations, keypoint_names
from posequant.evaluate.bootstrap import Comparison, Counts, Floats, interval
from posequant.evaluate.oks import similarity
from posequant.evaluate.predictions import Predictions


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
