"""How well each joint is found by two predictions of the same people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.data.dataset import Annotations
from posequant.evaluate.bootstrap import Comparison, Floats, ImageDraws, drawn_means
from posequant.evaluate.oks import similarity
from posequant.evaluate.predictions import Predictions

# By how much a detected box must overlap a person's annotated one to be the person's: intersection over union, at the
# threshold by which COCO's AP50 of boxes counts one as found.
MIN_OVERLAP = 0.5


@dataclass(frozen=True)
class JointCost:
    """What becomes of one joint.

    Attributes:
        name: the dataset's name of it.
        labelled: how many people have it annotated, of those who have a prediction.
        similarity: its mean part in OKS over those people, of both predictions.
    """

    name: str
    labelled: int
    similarity: Comparison


def joint_costs(
    annotations: Annotations, reference: Predictions, candidate: Predictions, draws: ImageDraws
) -> list[JointCost]:
    """Compare how well each joint is found, over all annotated people who count.

    A person's prediction is the one for the annotated box; with detected boxes the one for the box that overlaps the
    annotated one most, see `nearest_box`. Neither prediction has a say in it.

    Args:
        annotations: the annotated people.
        reference: the predictions of the FP32 network.
        candidate: those of the other, of the same people.
        draws: of the images of the annotations.
    """
    images, keypoints = len(draws.place_of), reference.keypoints
    labelled, sums = np.zeros((images, len(keypoints))), np.zeros((2, images, len(keypoints)))
    for person in annotations.coco.anns.values():
        if person["iscrowd"] or not person["num_keypoints"]:
            continue
        row = _row_of(person, reference)
        if row is None:
            continue
        truth = np.array(person["keypoints"], np.float64).reshape(-1, 3)
        visible, image = truth[:, 2] > 0, draws.place_of[person["image_id"]]
        labelled[image] += visible
        for of_network, predictions in zip(sums, (reference, candidate), strict=True):
            found, area = predictions.poses.keypoints[row], np.array(person["area"])
            of_network[image] += similarity(found, truth[:, :2], area, keypoints.sigmas) * visible
    return [
        JointCost(name, int(labelled[:, joint].sum()), _compare(sums[..., joint], labelled[:, joint], draws))
        for joint, name in enumerate(keypoints.names)
    ]


def nearest_box(boxes: NDArray[Any], box: NDArray[Any]) -> int | None:
    """Return which of `boxes` (N, 4) overlaps `box` (4,) most; None where none does by `MIN_OVERLAP`.

    Overlap is intersection over union; boxes are left, top, right and bottom in pixels. Of equal ones the first is
    returned.
    """
    boxes, box = boxes.astype(np.float64), np.asarray(box, np.float64)
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = np.maximum(sides, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    overlaps = shared / np.maximum(areas - shared, np.finfo(np.float64).tiny)
    if not len(overlaps) or overlaps.max() < MIN_OVERLAP:
        return None
    return int(overlaps.argmax())


def _row_of(person: Mapping[str, Any], predictions: Predictions) -> int | None:
    """Return the row of an annotated person among the predictions; None where there is none."""
    if predictions.identity["protocol"]["boxes"] == "ground-truth":
        rows = np.flatnonzero(predictions.ids == person["id"])
        return int(rows[0]) if len(rows) else None
    rows = np.flatnonzero(predictions.image_ids == person["image_id"])
    left, top, width, height = person["bbox"]
    place = nearest_box(predictions.bboxes[rows], np.array([left, top, left + width, top + height]))
    return None if place is None else int(rows[place])


def _compare(sums: Floats, counts: Floats, draws: ImageDraws) -> Comparison:
    drawn = np.stack([drawn_means(of_network, counts, draws.draws) for of_network in sums])
    number = counts.sum()
    return Comparison.of(sums.sum(axis=1) / number if number else np.full(2, np.nan), drawn, draws.confidence)
