"""How far the poses of a network are from those of the FP32 network, without annotations."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.evaluate.bootstrap import Estimate, Floats, ImageDraws, drawn_means
from posequant.evaluate.oks import Shift, shift_of_predictions, similarity
from posequant.evaluate.predictions import Predictions

# Distances in pixels of the image up to which a keypoint counts as where FP32 has it.
WITHIN_PIXELS = (1, 2, 4)
# COCO's names of people by their area in square pixels (pycocotools, `Params.setKpParams`); the largest belongs to the
# next. COCO's keypoint statistics leave small people out, and so do tables where there are none.
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}


@dataclass(frozen=True)
class PartCost:
    """How far the keypoints of one joint, or of people of one size, moved.

    Attributes:
        name: of the joint or the size, as COCO has it.
        people: how many people count.
        keypoints: how many of their keypoints.
        oks: as in `PoseCost`; of a joint its mean part in it. None, as `within`, where nobody counts.
        within: as in `PoseCost`.
    """

    name: str
    people: int
    keypoints: int
    oks: Estimate | None
    within: dict[str, Estimate] | None


@dataclass(frozen=True)
class PoseCost:
    """How far keypoints moved.

    Keypoints that the reference is unsure of do not count. People with no other keypoints do not count either
    (`evaluate.oks`).

    Attributes:
        people: how many people count.
        keypoints: how many of their keypoints.
        oks: mean over people of the OKS of the candidate with the reference in the place of the truth; None, as the
            others, where nobody counts.
        within: for each of `WITHIN_PIXELS`, the share of the keypoints that are no farther from the reference's.
        pixels: distance between the two in pixels of the image: `mean`, `median`, `p95`, the 95th percentile.
        relative: the same as a share of the root of the person's area.
        by_joint: each of the joints; empty where nobody counts.
        by_size: people of each of `SIZES`, by 0.53 times the area of the box; empty where nobody counts.
    """

    people: int
    keypoints: int
    oks: Estimate | None
    within: dict[str, Estimate] | None
    pixels: dict[str, float] | None
    relative: dict[str, float] | None
    by_joint: tuple[PartCost, ...] = ()
    by_size: tuple[PartCost, ...] = ()


def pose_cost(reference: Predictions, candidate: Predictions, draws: ImageDraws) -> PoseCost:
    """Compare the keypoints of two predictions of the same people, in the same order.

    Args:
        reference: the predictions of the FP32 network.
        candidate: those of the other.
        draws: of the images of the annotations.
    """
    shift = shift_of_predictions(reference, candidate)
    people = ~np.isnan(shift.oks)
    if not people.any():
        return PoseCost(0, 0, None, None, None, None)
    places = np.array([draws.place_of[image] for image in reference.image_ids.tolist()])

    def estimate(sums: Floats, counts: Floats) -> Estimate:
        """Return the mean over all people of what each adds to `sums` and to `counts`, (N,)."""
        of_images, in_images = (np.bincount(places, values, len(draws.place_of)) for values in (sums, counts))
        drawn = drawn_means(of_images, in_images, draws.draws)
        return Estimate.of(float(sums.sum() / counts.sum()), drawn, draws.confidence)

    number = shift.counted.sum(axis=1).astype(np.float64)
    relative = shift.pixels / np.sqrt(shift.areas)[:, np.newaxis]
    return PoseCost(
        people=int(people.sum()),
        keypoints=int(number.sum()),
        oks=estimate(np.where(people, shift.oks, 0.0), people.astype(np.float64)),
        within={
            str(limit): estimate(((shift.pixels <= limit) & shift.counted).sum(axis=1).astype(np.float64), number)
            for limit in WITHIN_PIXELS
        },
        pixels=_spread(shift.pixels[shift.counted]),
        relative=_spread(relative[shift.counted]),
        by_joint=_by_joint(reference, candidate, shift, places, draws),
        by_size=_by_size(shift, places, draws),
    )


def _by_joint(
    reference: Predictions, candidate: Predictions, shift: Shift, places: NDArray[np.int64], draws: ImageDraws
) -> tuple[PartCost, ...]:
    names, sigmas = reference.keypoints.names, reference.keypoints.sigmas
    agreement = similarity(candidate.poses.keypoints, reference.poses.keypoints, shift.areas, sigmas)
    inside = [((shift.pixels <= limit) & shift.counted) for limit in WITHIN_PIXELS]
    # All of one shape: (N, K).
    sums = [np.where(shift.counted, agreement, 0.0), *inside]
    oks, *within = (_estimates(values, shift.counted, places, draws) for values in sums)
    return tuple(
        _part(name, (number, number), oks[joint], [limit[joint] for limit in within])
        for joint, (name, number) in enumerate(zip(names, shift.counted.sum(axis=0).tolist(), strict=True))
    )


def _by_size(shift: Shift, places: NDArray[np.int64], draws: ImageDraws) -> tuple[PartCost, ...]:
    known, number = ~np.isnan(shift.oks), shift.counted.sum(axis=1)
    bounds = SIZES.values()
    # Who is of which size, (N, 3).
    people = np.column_stack([known & (low <= shift.areas) & (shift.areas < high) for low, high in bounds])
    keypoints = people * number[:, np.newaxis]
    oks = _estimates(people * np.where(known, shift.oks, 0.0)[:, np.newaxis], people, places, draws)
    within = []
    for limit in WITHIN_PIXELS:
        inside = ((shift.pixels <= limit) & shift.counted).sum(axis=1)
        within.append(_estimates(people * inside[:, np.newaxis], keypoints, places, draws))
    totals = zip(people.sum(axis=0).tolist(), keypoints.sum(axis=0).tolist(), strict=True)
    return tuple(
        _part(name, total, oks[size], [limit[size] for limit in within])
        for size, (name, total) in enumerate(zip(SIZES, totals, strict=True))
    )


def _part(name: str, total: tuple[int, int], oks: Estimate, within: list[Estimate]) -> PartCost:
    people, keypoints = total
    if not people:
        return PartCost(name, 0, 0, None, None)
    return PartCost(name, people, keypoints, oks, dict(zip(map(str, WITHIN_PIXELS), within, strict=True)))


def _estimates(
    sums: NDArray[Any], counts: NDArray[Any], places: NDArray[np.int64], draws: ImageDraws
) -> list[Estimate]:
    """Return the mean over all people of what each adds to K sums and to their counts, both (N, K); NaN of nobody."""
    images, columns = len(draws.place_of), sums.shape[1]
    of_images = np.zeros((images, 2 * columns))
    np.add.at(of_images, places, np.column_stack([sums, counts]).astype(np.float64))
    # One product for all columns, which `drawn_means` would make one by one.
    totals, numbers = np.hsplit(draws.draws.astype(np.float64) @ of_images, 2)
    drawn = np.full(totals.shape, np.nan)
    np.divide(totals, numbers, out=drawn, where=numbers > 0)
    whole, number = np.split(of_images.sum(axis=0), 2)
    values = np.divide(whole, number, out=np.full(columns, np.nan), where=number > 0)
    return [Estimate.of(float(value), column, draws.confidence) for value, column in zip(values, drawn.T, strict=True)]


def _spread(values: Floats) -> dict[str, float]:
    median, high = np.percentile(values, [50, 95])
    return {"mean": float(values.mean()), "median": float(median), "p95": float(high)}
