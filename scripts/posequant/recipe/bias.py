"""The step `correct-bias`: what quantization adds to each channel on average is taken off its bias, and its gain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posequant.ncnn_format.model import Layer, Weights
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.ncnn2int8 import quantize_layer, quantized
from posequant.quantize.propagation import MEMORY, Visit, propagate
from posequant.quantize.weights import quantizable
from posequant.recipe.draft import Draft, Floats, representable
from posequant.recipe.positions import before_activation, by_channel, passed_on, position_weights, without_activation
from posequant.workflow.settings.recipe import CorrectBiasStep

# Between these a gain stays, however little of a channel the crops show.
GAINS = (0.5, 2.0)

Doubles = NDArray[np.float64]


class FloatWay:
    """What the layers of a float network give on the same crops before their activation, kept for the next time.

    Where it takes more than `limit` bytes, nothing is kept.

    Attributes:
        known: whether all of it is kept.
    """

    def __init__(self, limit: int = MEMORY) -> None:
        """Start with nothing."""
        self.known = False
        self._kept: dict[str, tuple[list[Floats], list[Floats]]] = {}
        self._left = limit

    def outputs(self, visit: Visit) -> tuple[list[Floats], list[Floats]]:
        """Return what a layer gives on each crop, and how much each position counts."""
        if self.known:
            return self._kept[visit.layer.name]
        outputs = before_activation(visit)
        found = outputs, position_weights(outputs)
        self._left -= sum(values.nbytes for values in (*found[0], *found[1]))
        if self._left >= 0:
            self._kept[visit.layer.name] = found
        else:
            self._kept.clear()
        return found

    def pass_by(self, visit: Visit) -> None:
        """Keep what a layer gives that only other drafts have in INT8."""
        if not self.known and self._left >= 0:
            self.outputs(visit)

    def end(self) -> None:
        """Say that all layers were visited."""
        self.known = self._left >= 0


def correct_bias(
    draft: Draft, crops: Sequence[Floats], threads: int, settings: CorrectBiasStep, way: FloatWay | None = None
) -> Draft:
    """Correct the biases, and with `gain` the weight scales, layer by layer for what the layers before it give in INT8.

    The mean error of each channel before its activation is measured from real INT8 outputs and subtracted (Nagel and
    others: Data-Free Quantization through Weight Equalization and Bias Correction, 2019, section 4.2, and appendix D
    for the empirical form). Positions count as in `position_weights`, and not at all where the activation hides the
    error: the network would pay for what nobody sees. A layer without a bias gets none.

    With `gain`, the correction is affine (QwT-v2, arXiv 2505.20932): the output of each channel, or of each depthwise
    group, is also multiplied by what brings it nearest to the float layer's. The INT8 weights stay what they are; the
    factor goes into their scale, so it costs nothing at run time.

    Args:
        draft: the draft, with all scales.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time.
        settings: how many of the crops are looked at, and whether gains are corrected.
        way: what is known of the float network, where biases of several drafts of it are corrected on the same crops.
    """
    changed: dict[str, Weights] = {}
    scales: dict[str, Floats] = {}
    names, way = set(draft.names), way or FloatWay(limit=0)

    def correct(visit: Visit) -> tuple[Layer, Weights] | None:
        if visit.layer.name not in names:
            way.pass_by(visit)
            return None
        layer, weights = draft.quantized(visit.layer)
        has_bias = "bias" in weights
        if not (has_bias or settings.gain):
            return layer, weights
        sums = compare(visit, layer, weights, way)
        before = draft.weight_scales[layer.name]
        after = before
        if settings.gain:
            after = representable((before / sums.gains(len(before), has_bias)).astype(np.float32))
        values = rescaled(draft.model.named(layer.name)[1], before, after)
        if has_bias:
            # That of the scale as the table holds it, one for each channel.
            gains = np.broadcast_to(before.astype(np.float64) / after, layer.integer(0))
            values["bias"] = (gains * weights["bias"] + sums.offsets(gains)).astype(np.float32)
        changed[layer.name], scales[layer.name] = values, after
        return quantize_layer(visit.layer, values, after, draft.activation_scales[layer.name])

    propagate(
        draft.reference,
        crops[: settings.crops],
        correct,
        # Another draft may have those in INT8 that this one has in float.
        [layer.name for layer in quantizable(draft.model.layers)],
        threads=threads,
        title="biases",
        quantized_only=way.known,
    )
    way.end()
    return replace(draft.with_weights(changed), weight_scales={**draft.weight_scales, **scales}, biases_corrected=True)


@dataclass(frozen=True)
class Sums:
    """Weighted sums over the positions of each of N crops for C channels, each float64 (N, C).

    They are of what an INT8 layer gives before its activation, x, and of what it should give, y.

    Attributes:
        weight: of the weights alone.
        x: of x.
        y: of y.
        xx: of its squares.
        xy: of the products.
    """

    weight: Doubles
    x: Doubles
    y: Doubles
    xx: Doubles
    xy: Doubles

    def offsets(self, gains: Doubles) -> Doubles:
        """Return what to add to each channel, multiplied by a gain, so that no mean error is left, float64 (C,)."""
        weight = self.weight.sum(axis=0)
        lack: Doubles = self.y.sum(axis=0) - gains * self.x.sum(axis=0)
        offsets: Doubles = np.divide(lack, weight, out=np.zeros_like(lack), where=weight > 0)
        return offsets

    def gains(self, groups: int, about_mean: bool) -> Doubles:
        """Return the factors that bring each group of channels nearest to what it should give, float64 (G,).

        A factor is drawn towards 1 as far as it is uncertain: by the variance that the jackknife over the crops finds
        for it, as a share of its square distance from 1. It stays within `GAINS`.

        Args:
            groups: how many groups of channels, each with one scale.
            about_mean: whether an offset is added, too.
        """
        terms = self._products(about_mean).reshape(2, len(self.x), groups, -1).sum(axis=3)
        total = terms.sum(axis=1)
        count = len(self.x)
        found = _ratio(total)
        if count < 2:
            return np.ones_like(found)
        without = _ratio(total[:, np.newaxis] - terms)
        variance = (count - 1) * np.square(without - without.mean(axis=0)).mean(axis=0)
        distance = np.square(found - 1)
        share = np.divide(distance - variance, distance, out=np.zeros_like(found), where=distance > variance)
        gains: Doubles = np.clip(1 + share * (found - 1), *GAINS)
        return gains

    def _products(self, about_mean: bool) -> Doubles:
        """Return the sums of xy and xx, about the mean of all crops or about 0, float64 (2, N, C)."""
        weight = np.maximum(self.weight.sum(axis=0), np.finfo(np.float64).tiny)
        x, y = (self.x.sum(axis=0) / weight, self.y.sum(axis=0) / weight) if about_mean else (0.0, 0.0)
        xy = self.xy - x * self.y - y * self.x + x * y * self.weight
        xx = self.xx - 2 * x * self.x + x * x * self.weight
        return np.stack([xy, xx])


def _ratio(products: Doubles) -> Doubles:
    """Return xy / xx, and 1 where there is nothing to tell it by."""
    xy, xx = products
    ratio: Doubles = np.divide(xy, xx, out=np.ones_like(xy), where=xx > np.finfo(np.float32).tiny)
    return ratio


def mean_error(visit: Visit, layer: Layer, weights: Weights) -> Doubles:
    """Return what each channel of an INT8 layer lacks on average, before its activation, float64 (C,).

    Args:
        visit: the float layer, and what reaches it.
        layer: the layer in INT8.
        weights: its weights.
    """
    sums = compare(visit, layer, weights, FloatWay(limit=0))
    return sums.offsets(np.ones(sums.x.shape[1]))


def compare(visit: Visit, layer: Layer, weights: Weights, way: FloatWay) -> Sums:
    """Compare an INT8 layer with the float layer, before their activation.

    Args:
        visit: the float layer, and what reaches it.
        layer: the layer in INT8.
        weights: its weights.
        way: what is known of the float network.
    """
    int8 = LayerNetwork(without_activation(layer), weights)
    wanted, shares = way.outputs(visit)

    def total(terms: Floats) -> Doubles:
        added: Doubles = terms.sum(axis=1, dtype=np.float64)
        return added

    def sums(item: tuple[Floats, Floats, Floats]) -> Doubles:
        values, want, counts = item
        x, y = by_channel(int8.run([values])[0]), by_channel(want)
        seen = counts * (passed_on(layer, x) | passed_on(layer, y))
        of_x = seen * x
        return np.stack([total(seen), total(of_x), total(seen * y), total(of_x * x), total(of_x * y)])

    items = zip(visit.reached, wanted, shares, strict=True)
    return Sums(*np.stack(visit.each(sums, items), axis=1))


def rescaled(weights: Weights, before: Floats, after: Floats) -> Weights:
    """Return weights that scales `after` take to the INT8 values to which scales `before` take `weights`.

    Args:
        weights: of a layer in float.
        before: its weight scales, float32 (G,).
        after: others.
    """
    if np.array_equal(before, after):
        return dict(weights)
    integers = quantized(weights["weight"].astype(np.float32), before).reshape(len(before), -1)
    factors = (before.astype(np.float64) / after)[:, np.newaxis]
    moved = (weights["weight"].reshape(len(before), -1) * factors).astype(np.float32)
    # A weight in the middle between two integers may fall to the other side.
    kept = quantized(moved.ravel(), after).reshape(integers.shape) == integers
    moved = np.where(kept, moved, (integers / after[:, np.newaxis].astype(np.float64)).astype(np.float32)).ravel()
    if not np.array_equal(quantized(moved, after), integers.ravel()):
        raise AssertionError("ncnn2int8 would round the weights to other values")
    return {**weights, "weight": moved}
