"""How far the poses of a network are from those of the FP32 network, without annotations."""

from dataclasses import dataclass

import numpy as np

from posequant.evaluate.bootstrap import Estimate, Floats, ImageDraws, drawn_means
from posequant.evaluate.oks import shift_of_predictions
from posequant.evaluate.predictions import Predictions

# Distances in pixels of the image up to which a keypoint counts as where FP32 has it.
WITHIN_PIXELS = (1, 2, 4)


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
    """

    people: int
    keypoints: int
    oks: Estimate | None
    within: dict[str, Estimate] | None
    pixels: dict[str, float] | None
    relative: dict[str, float] | None


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
    )


def _spread(values: Floats) -> dict[str, float]:
    median, high = np.percentile(values, [50, 95])
    return {"mean": float(values.mean()), "median": float(median), "p95": float(high)}
