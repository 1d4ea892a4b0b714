"""COCO's keypoint metrics under mmpose's protocol."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from posequant.base.errors import InputError
from posequant.base.keypoints import COCO, KeypointSet
from posequant.base.measures import STATISTICS
from posequant.base.verify import versions
from posequant.data.dataset import CROWD, Annotations, index_annotations, load_annotations
from posequant.evaluate.distances import distances_of
from posequant.evaluate.predictions import Predictions, require_everyone

# mmpose's CocoMetric: keypoints below this score do not count in a person's score; people whose OKS with a better
# one is above that are left out.
KEYPOINT_SCORE_THRESHOLD = 0.2
NMS_THRESHOLD = 0.9

# Crowd indices of CrowdPose's levels, from one to below the other.
CROWDED = {"AP easy": (0.0, 0.2), "AP medium": (0.2, 0.8), "AP hard": (0.8, np.inf)}
# Sets that mmpose scores by parts, and where these begin and end.
WHOLE_BODIES = ("coco_wholebody", "ubody2d")
WHOLE_BODY = {"body": (0, 17), "foot": (17, 23), "face": (23, 91), "left hand": (91, 112), "right hand": (112, 133)}


def evaluate_predictions(predictions_path: Path, annotations_path: Path) -> tuple[dict[str, Any], str]:
    """Score a file of predictions.

    Returns:
        The content of `metrics.json`: the identity of the predictions; `statistics`, of `STATISTICS`, with null where
        no person is of that size; numbers of `images` and of `detections` that remain after the suppression of
        duplicates; the version of pycocotools. And pycocotools' summary in words.

    Raises:
        InputError: a file is missing or damaged, or the predictions were made for other annotations, or not for each
            of their people once.
    """
    predictions = Predictions.load(predictions_path)
    annotations = load_annotations(annotations_path, predictions.keypoints)
    require_everyone(predictions, predictions_path, annotations)
    scored, statistics, summary = score(predictions, annotations)
    identity = dict(predictions.identity)
    identity["versions"] = identity["versions"] | versions("pycocotools")
    counts = {"images": len(annotations.images), "detections": scored}
    return identity | counts | {"statistics": statistics}, summary


def score(predictions: Predictions, annotations: Annotations) -> tuple[int, dict[str, float | None], str]:
    """Score predictions as mmpose's evaluators of the dataset do.

    With sigmas there are COCO's statistics; of CrowdPose those by how crowded images are, of COCO-WholeBody those of
    each part, too. Other sets than COCO's have the distances to annotated keypoints (`evaluate.distances`) beside them,
    in annotated boxes; without sigmas they are all there is.

    Returns:
        How many people are scored; the statistics, with null where nobody is to be found; a summary in words.

    Raises:
        InputError: the set has no sigmas, and the boxes are detected ones.
    """
    keypoints = annotations.keypoints
    scored = len(predictions.ids)
    statistics: dict[str, float | None] = {}
    summary = f"The set of keypoints {keypoints} has no sigmas: there is neither OKS nor AP.\n"
    if keypoints.sigmas is not None:
        results = coco_results(predictions, annotations.category_of)
        scored = len(results)
        statistics, summary = coco_statistics(annotations, results)
        if keypoints.name == CROWD:
            statistics |= crowd_statistics(annotations, results)
        if keypoints.name in WHOLE_BODIES:
            statistics |= part_statistics(annotations, results)
    if keypoints != COCO and (not statistics or predictions.identity["protocol"]["boxes"] == "ground-truth"):
        everyone = np.ones((1, len(predictions.ids)), np.int32)
        measured = distances_of(annotations, predictions).statistics(everyone)
        statistics |= {name: _known(float(value)) for name, (value,) in measured.items()}
    return scored, statistics, summary


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def crowd_statistics(annotations: Annotations, results: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return AP on images of CrowdPose that are easy, medium and hard by their crowd index; all if they have none.

    Source: xtcocotools, `get_type_result`.
    """
    index_of = {identifier: image.get("crowdIndex") for identifier, image in annotations.coco.imgs.items()}
    if None in index_of.values():
        return {}
    found = {}
    for name, (low, high) in CROWDED.items():
        images = [identifier for identifier, index in index_of.items() if low <= index < high]
        evaluation = matched_people(annotations, results, images)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        precision = evaluation.eval["precision"][:, :, :, 0, :]
        found[name] = None if (precision < 0).any() else float(precision.mean())
    return found


def part_statistics(annotations: Annotations, results: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return AP and AR of each part of whole bodies. Source: mmpose 1.3.2, coco_wholebody_metric.py."""
    found: dict[str, float | None] = {}
    for part, (start, end) in WHOLE_BODY.items():
        some = slice(3 * start, 3 * end)
        people = [
            person | {"keypoints": own, "num_keypoints": sum(value > 0 for value in own[2::3])}
            for person in annotations.coco.anns.values()
            for own in [person["keypoints"][some]]
        ]
        keypoints = annotations.keypoints
        sigmas = keypoints.sigmas and keypoints.sigmas[start:end]
        content = annotations.coco.dataset | {"annotations": people}
        of_part = replace(
            annotations,
            coco=index_annotations(content),
            keypoints=replace(KeypointSet.unknown(keypoints.names[start:end]), sigmas=sigmas),
        )
        statistics, _ = coco_statistics(of_part, [one | {"keypoints": one["keypoints"][some]} for one in results])
        found |= {f"{name} {part}": statistics[name] for name in ("AP", "AR")}
    return found


def coco_results(predictions: Predictions, category: int | Mapping[int, int]) -> list[dict[str, Any]]:
    """Return the people that are scored, in COCO's result format, as mmpose's CocoMetric writes it.

    Of people with the same id in an image one remains, and so of those in almost the same pose. Source: mmpose 1.3.2,
    coco_metric.py, `compute_metrics` and `results2json`.

    Args:
        predictions: of everybody.
        category: of everybody, or of each by the id.
    """
    poses, sigmas = predictions.poses, sigmas_of(predictions.keypoints)
    triplets = np.concatenate([poses.keypoints, poses.keypoint_scores[..., np.newaxis]], axis=2)
    scores = person_scores(predictions.bbox_scores, poses.keypoint_scores)
    areas = poses.scales.prod(axis=1)
    low, high = predictions.bboxes[:, :2], predictions.bboxes[:, 2:]
    if predictions.keypoints.name in WHOLE_BODIES:
        # CocoWholeBodyMetric leaves boxes out, so that a result has the size of its body.
        body = poses.keypoints[:, slice(*WHOLE_BODY["body"])]
        low, high = body.min(axis=1), body.max(axis=1)
    boxes = np.hstack([low, high - low])
    results = []
    for image in dict.fromkeys(predictions.image_ids.tolist()):
        rows = np.flatnonzero(predictions.image_ids == image)
        rows = rows[np.unique(predictions.ids[rows], return_index=True)[1]]
        results += [
            {
                "image_id": image,
                "category_id": category if isinstance(category, int) else category[int(predictions.ids[row])],
                "keypoints": triplets[row].ravel().tolist(),
                "score": float(scores[row]),
                # pycocotools takes a result's size from its box where there is one.
                "bbox": boxes[row].tolist(),
            }
            for row in rows[distinct_people(poses.keypoints[rows], areas[rows], scores[rows], sigmas)]
        ]
    return results


def sigmas_of(keypoints: KeypointSet) -> NDArray[np.float32]:
    """Return the falloff of OKS for each keypoint, float32 (K,); `InputError` where there is none."""
    if keypoints.sigmas is None:
        raise InputError(
            f"the set of keypoints {keypoints} has no sigmas, without which neither OKS nor AP is defined. Give it "
            "sigmas in a file of your own, or use PCK and NME."
        )
    return np.array(keypoints.sigmas, np.float32)


def distinct_people(
    keypoints: NDArray[np.float32],
    areas: NDArray[np.float32],
    scores: NDArray[np.float32],
    sigmas: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Return whom of the people of an image to keep, the best first: nobody whose OKS with a better one is above 0.9.

    Source: mmpose 1.3.2, evaluation/functional/nms.py, `oks_nms` and `oks_iou`.

    Args:
        keypoints: float32 (N, K, 2), in pixels.
        areas: float32 (N,), in square pixels.
        scores: of the people, float32 (N,).
        sigmas: falloff of OKS for each keypoint, float32 (K,).
    """
    spread = (2 * sigmas) ** 2
    order = scores.argsort()[::-1]
    kept = []
    while len(order):
        best, others = order[0], order[1:]
        kept.append(best)
        squared = ((keypoints[others] - keypoints[best]) ** 2).sum(axis=2)
        size = (areas[best] + areas[others])[:, np.newaxis] / 2 + np.spacing(1)
        # Rounded to float32 as by mmpose, so that nobody is on the other side of the threshold.
        similarity = np.exp(-(squared / spread / size / 2)).mean(axis=1).astype(np.float32)
        order = others[similarity <= NMS_THRESHOLD]
    return np.array(kept, np.int64)


def person_scores(bbox_scores: NDArray[np.float32], keypoint_scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the score of each person, float32 (N,): box score times the mean of the keypoint scores above 0.2.

    A person without such a keypoint scores 0. Source: mmpose 1.3.2, coco_metric.py, `compute_metrics`.
    """
    counted = keypoint_scores > KEYPOINT_SCORE_THRESHOLD
    # A running sum, as mmpose's, so that rounding cannot swap two people.
    sums = np.cumsum(np.where(counted, keypoint_scores, np.float32(0)), axis=1, dtype=np.float32)[:, -1]
    means = sums / np.maximum(counted.sum(axis=1), 1).astype(np.float32)
    return np.asarray(bbox_scores * means, np.float32)


def coco_statistics(annotations: Annotations, results: list[dict[str, Any]]) -> tuple[dict[str, float | None], str]:
    """Return the ten statistics of pycocotools, over all images of the annotations, and its summary in words.

    CocoMetric takes xtcocotools, which gives the same unless a `num_keypoints` is wrong, or all keypoints of a result
    score 0 or less.
    """
    evaluation = matched_people(annotations, results)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as log:
        evaluation.summarize()
    # pycocotools says -1 where no annotated person is of the size.
    statistics = {
        name: None if value < 0 else float(value) for name, value in zip(STATISTICS, evaluation.stats, strict=True)
    }
    return statistics, log.getvalue()


def matched_people(
    annotations: Annotations,
    results: list[dict[str, Any]],
    images: Sequence[int] | None = None,
    categories: Sequence[int] | None = None,
) -> COCOeval:
    """Return pycocotools' evaluation, in which results and annotated people are matched image by image.

    Args:
        annotations: the annotated people.
        results: in COCO's result format.
        images: ids of those to look at; without, all.
        categories: the same of categories.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(annotations.coco, annotations.coco.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas_of(annotations.keypoints)
        evaluation.params.catIds = list(categories or annotations.categories)
        if images is not None:
            evaluation.params.imgIds = images
        evaluation.evaluate()
    return evaluation
