"""What measured networks lose: on the people they were measured on, and what is to be expected of them on others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posequant.base.signal import Powers
from posequant.evaluate.bootstrap import Counts, Estimate, corrected, draw_images, drawn_means, left_out, upper_bound

Doubles = NDArray[np.float64]

RESAMPLES, CONFIDENCE = 1000, 0.95
# Noise by signal (10 dB) beyond which the loss of OKS no longer grows in proportion: nothing is learned there.
MOST_AMPLITUDE = 10 ** (-10 / 20)
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Evidence:
    """What was measured of a network on N people.

    Attributes:
        powers: of its outputs and of their difference from the float network's, person by person.
        oks: of its poses, with the float network's in the place of the truth, float64 (N,); NaN where the float network
            is sure of no keypoint.
        ap_losses: the AP that it loses on everybody and in each of B draws, float64 (1 + B,); None without labels.
    """

    powers: Sequence[Powers]
    oks: Doubles
    ap_losses: Doubles | None = None


@dataclass(frozen=True)
class Score:
    """What a network loses, by its evidence and by that of all networks beside it. Intervals and bounds are of 95%.

    Attributes:
        oks_loss: 1 - mean OKS to the float network's poses, on the people that it was measured on; None where the float
            network is sure of no keypoint.
        expected_oks_loss: what it is expected to be on other people, see `scores`; None as `oks_loss`.
        expected_oks_loss_bound: the one-sided upper bound of that; None also where too few draws tell it.
        ap_loss: AP of the float network less that of this one; None without labels.
        ap_loss_bound: the one-sided upper bound of that.
    """

    oks_loss: Estimate | None
    expected_oks_loss: float | None
    expected_oks_loss_bound: float | None
    ap_loss: Estimate | None
    ap_loss_bound: float | None


@dataclass(frozen=True)
class Draws:
    """How often N people in I images count.

    Attributes:
        drawn: everybody once, and then each of B draws of the images, int32 (1 + B, N). People of one image are drawn
            together.
        without_one: everybody but those of each image in turn, int32 (I, N).
    """

    drawn: Counts
    without_one: Counts

    @classmethod
    def of(cls, image_ids: NDArray[np.int64], seed: int = 0) -> "Draws":
        """Return `RESAMPLES` draws of the people whose images `image_ids` (N,) says."""
        images, image_of = np.unique(image_ids, return_inverse=True)
        everybody = np.ones((1, len(image_ids)), np.int32)
        drawn = draw_images(len(images), RESAMPLES, seed)[:, image_of]
        others = (image_of != np.arange(len(images))[:, np.newaxis]).astype(np.int32)
        return cls(np.concatenate([everybody, drawn]), others)


@dataclass(frozen=True)
class _Figure:
    """A figure of everybody, in each draw, float64 (B,), and without each of the images, float64 (I,)."""

    value: float
    drawn: Doubles
    without_one: Doubles

    def at(self, confidence: float) -> float | None:
        """Return the one-sided bound that holds with the probability `confidence`; None where too few draws tell it."""
        return upper_bound(self.drawn, corrected(confidence, self.value, self.drawn, self.without_one))

    def estimate(self) -> Estimate:
        low, high = self.at((1 - CONFIDENCE) / 2), self.at((1 + CONFIDENCE) / 2)
        between = None if low is None or high is None else (low, high)
        return Estimate(self.value, between, left_out(self.drawn))


def scores(evidence: Sequence[Evidence], draws: Draws) -> list[Score]:
    """Return what each network loses, given the evidence of all of them. Their order does not matter.

    Few keypoints that jump make most of a loss of OKS, so on few people that of one network against that of another is
    chance. But the loss is proportional to the amplitude of the noise in the outputs (docs/quantization.md has
    figures), which few people tell well. So what is expected of a network is the amplitude of its noise times what all
    networks say of the two: the sum of their losses by the sum of their amplitudes. A network with more noise than
    `MOST_AMPLITUDE` says nothing of the others, and its own loss is what is expected of it.

    The bounds are those of a bootstrap over the people's images, in which amplitudes, losses and the ratio of their
    sums are all taken anew in each draw. Those of OKS are bias-corrected and accelerated: tried on samples of 64 of the
    people of val2017 and of the demo, the bound at 95% held in 91% to 95% of them, that by plain percentiles in 89% to
    93%; of 32 people, in 86% to 92% and 82% to 90%. Those of AP are by percentiles, as its intervals are (see
    `evaluate.bootstrap`).

    Args:
        evidence: of each network, all on the same people.
        draws: of these people.
    """
    (losses, expected), others = _losses(evidence, draws.drawn), _losses(evidence, draws.without_one)
    found = []
    for place, one in enumerate(evidence):
        of_oks = [
            _Figure(float(values[place][0]), values[place][1:], without_one[place])
            for values, without_one in zip((losses, expected), others, strict=True)
        ]
        known = not np.isnan(one.oks).all()
        ap_losses = one.ap_losses
        found.append(
            Score(
                oks_loss=of_oks[0].estimate() if known else None,
                expected_oks_loss=of_oks[1].value if known else None,
                expected_oks_loss_bound=of_oks[1].at(CONFIDENCE) if known else None,
                ap_loss=None if ap_losses is None else Estimate.of(float(ap_losses[0]), ap_losses[1:], CONFIDENCE),
                ap_loss_bound=None if ap_losses is None else upper_bound(ap_losses[1:], CONFIDENCE),
            )
        )
    return found


def _losses(evidence: Sequence[Evidence], weights: Counts) -> tuple[list[Doubles], list[Doubles]]:
    """Return the loss of OKS of each network and the expected one, with people counting as `weights` (R, N) says.

    Each is float64 (R,); NaN where nobody counts.
    """
    losses = [_mean_losses(one.oks, weights) for one in evidence]
    amplitudes = [_amplitudes(one.powers, weights) for one in evidence]
    saturated = [Powers.total(one.powers).ratio > MOST_AMPLITUDE**2 for one in evidence]
    ratio = _sums(losses, saturated, weights) / np.maximum(_sums(amplitudes, saturated, weights), _TINY)
    expected = [
        loss if beyond else amplitude * ratio
        for loss, amplitude, beyond in zip(losses, amplitudes, saturated, strict=True)
    ]
    return losses, expected


def _mean_losses(oks: Doubles, weights: Counts) -> Doubles:
    known = ~np.isnan(oks)
    return drawn_means(np.where(known, 1 - oks, 0), known, weights)


def _amplitudes(powers: Sequence[Powers], weights: Counts) -> Doubles:
    noise, signal = (weights @ np.array([getattr(power, name) for power in powers]) for name in ("noise", "signal"))
    amplitudes: Doubles = np.sqrt(noise / np.maximum(signal, _TINY))
    return amplitudes


def _sums(values: Sequence[Doubles], saturated: Sequence[bool], weights: Counts) -> Doubles:
    """Return the sum over the networks that are not saturated, by an algorithm that gives the same in any order."""
    terms = [of_one for of_one, beyond in zip(values, saturated, strict=True) if not beyond]
    return np.array([math.fsum(row) for row in zip(*terms, strict=True)]) if terms else np.zeros(len(weights))
