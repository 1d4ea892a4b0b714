"""The step `round`: weights are rounded up or down so that the layer's output changes least, not each by itself."""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from posequant.ncnn_format.model import PAD_VALUE, Layer, Weights, weighted_inputs
from posequant.ncnn_format.window import Window
from posequant.quantize.ncnn2int8 import quantize_layer
from posequant.quantize.propagation import Visit, propagate
from posequant.quantize.weights import INT8_LIMIT, rounded_to_integers
from posequant.recipe.draft import Draft, Floats
from posequant.recipe.positions import before_activation, position_weights
from posequant.workflow.settings.recipe import RoundStep

# Positions of each crop that are looked at: with some dozens of crops many times what a layer has of weights a channel.
POSITIONS = 512
# Share of the mean curvature that is added to each weight's, against fitting to few crops.
RIDGE = 0.01
PASSES = 6
# Crops whose moments are held at a time.
_CROPS_AT_ONCE = 4

Doubles = NDArray[np.float64]


def learn_rounding(draft: Draft, crops: Sequence[Floats], threads: int, settings: RoundStep) -> Draft:
    """Choose the INT8 weights of each layer, for what the layers before it give in INT8.

    Minimised is the squared error of the layer's output before its bias and activation, as by AdaRound (Nagel and
    others: Up or Down? Adaptive Rounding for Post-Training Quantization, 2020). As that is a quadratic form in the
    weights, of the second moments of the layer's input, it needs no gradient descent: one weight after the other takes
    the best of all INT8 values while the others stay, for some rounds (Behdin and others: QuantEase, 2023). The float
    weights of the draft become multiples of the INT8 step, which ncnn2int8 rounds to just these values.

    Args:
        draft: the draft, with all scales.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time.
        settings: the seed of the choice of positions, and how many of the crops are looked at.
    """
    changed: dict[str, Weights] = {}

    def learn(visit: Visit) -> tuple[Layer, Weights]:
        layer = visit.layer
        weights = draft.model.named(layer.name)[1]
        scales, activation_scale = draft.weight_scales[layer.name], draft.activation_scales[layer.name]
        moments, means = moments_about_means(visit, activation_scale, settings.seed)
        rows = weights["weight"].astype(np.float64).reshape(layer.integer(0), -1)
        steps = 1 / np.broadcast_to(scales.astype(np.float64), len(rows))
        limit = draft.weight_limits.get(layer.name, INT8_LIMIT)
        groups = np.array_split(np.arange(len(rows)), len(moments))
        int8 = np.concatenate(
            [
                best_integers(rows[group], steps[group], moment, limit)
                for group, moment in zip(groups, moments, strict=True)
            ]
        )
        new = {"weight": (int8 * steps[:, np.newaxis]).astype(np.float32).ravel()}
        if "bias" in weights:
            # Moments about the means leave out what the change adds on average.
            change = (int8 - rounded_to_integers(rows / steps[:, np.newaxis], limit)) * steps[:, np.newaxis]
            added = [change[group] @ mean for group, mean in zip(groups, means, strict=True)]
            new["bias"] = (weights["bias"] - np.concatenate(added)).astype(np.float32)
        changed[layer.name] = new
        quantized = quantize_layer(layer, {**weights, **new}, scales, activation_scale)
        if not np.array_equal(quantized[1]["weight"], int8.astype(np.int8).ravel()):
            raise AssertionError(f"layer {layer.name}: ncnn2int8 would round its weights to other values")
        return quantized

    propagate(draft.reference, crops[: settings.crops], learn, draft.names, threads=threads, title="rounding")
    return draft.with_weights(changed)


def moments_about_means(visit: Visit, activation_scale: np.float32, seed: int) -> tuple[Doubles, Doubles]:
    """Return the second moments, about the means, of what a layer's weights are multiplied with in INT8, and the means.

    Args:
        visit: the layer, and what reaches it.
        activation_scale: of its input.
        seed: of the choice of positions, at most `POSITIONS` of each crop; they count as in `position_weights`.

    Returns:
        float64 (G, n, n) and (G, n) for G depthwise groups, or 1, of n weights.
    """
    shares = position_weights(before_activation(visit))
    generator = np.random.default_rng(seed)
    # Far from 0, sums of squares in float32 would lose what is sought.
    offset = visit.reached[0].mean(dtype=np.float64).astype(np.float32)
    choices = [np.sort(generator.permutation(share.size)[:POSITIONS]) for share in shares]

    def sums(item: tuple[Floats, Floats, NDArray[np.int64]]) -> tuple[Floats, Floats]:
        values, share, choice = item
        scaled = values * activation_scale
        int8 = rounded_to_integers(scaled)
        patches = columns(visit.layer, int8 / activation_scale, choice) - offset
        counts = share[choice]
        counted = (patches * counts[:, np.newaxis]).transpose(0, 2, 1)
        return np.asarray(counted @ patches, np.float32), counted.sum(axis=2)

    items = list(zip(visit.reached, shares, choices, strict=True))
    second: Doubles = np.zeros(1)
    first: Doubles = np.zeros(1)
    # In the order of the crops, and only a few at a time: a moment is as large as the square of a layer's weights.
    for start in range(0, len(items), _CROPS_AT_ONCE):
        for of_crop in visit.each(sums, items[start : start + _CROPS_AT_ONCE]):
            second, first = second + of_crop[0], first + of_crop[1]
    total = sum(float(share[choice].sum(dtype=np.float64)) for share, choice in zip(shares, choices, strict=True))
    means: Doubles = first / total
    moments: Doubles = second / total - means[:, :, np.newaxis] * means[:, np.newaxis]
    return moments, means + offset


def columns(layer: Layer, values: Floats, positions: NDArray[np.int64]) -> Floats:
    """Return what some applications of a layer's weights multiply them with, float32 (G, P, n).

    Args:
        layer: a convolution, depthwise convolution or inner product.
        values: its input, float32 (C, H, W), or for an inner product of any shape.
        positions: P places in the output map, row by row.

    Returns:
        For G depthwise groups, or 1, and P positions, the n inputs in the order of the weights.
    """
    if layer.type == "InnerProduct":
        return values.reshape(1, -1, weighted_inputs(layer) or values.size)[:, positions]
    window = Window.of(layer)
    left, right, top, bottom = window.pads
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right)), constant_values=layer.real(PAD_VALUE))
    windows = sliding_window_view(padded, window.extent, axis=(1, 2))
    taps = windows[:, :: window.stride[0], :: window.stride[1], :: window.dilation[0], :: window.dilation[1]]
    chosen = taps[:, positions // taps.shape[2], positions % taps.shape[2]]
    if layer.type == "ConvolutionDepthWise":
        return chosen.reshape(len(values), len(positions), -1)
    return chosen.transpose(1, 0, 2, 3).reshape(1, len(positions), -1)


def best_integers(weights: Doubles, steps: Doubles, moments: Doubles, limit: int, passes: int = PASSES) -> Doubles:
    """Return the integers q that minimise (q step - w) M (q step - w)' for each row w of weights.

    Each row's problem is solved by coordinate descent from the nearest integers: the error never grows.

    Args:
        weights: float64 (C, n).
        steps: float64 (C,), the weight of one integer step.
        moments: M, float64 (n, n), positive semi-definite.
        limit: the largest magnitude of an integer.
        passes: how many rounds at the most; it ends when none of the weights moves.

    Returns:
        Whole numbers, float64 (C, n).
    """
    curvature = moments + RIDGE * np.trace(moments) / len(moments) * np.eye(len(moments))
    integers = rounded_to_integers(weights / steps[:, np.newaxis], limit)
    slopes = (integers * steps[:, np.newaxis] - weights) @ curvature
    for _ in range(passes):
        moved = False
        for index, steepness in enumerate(np.diag(curvature)):
            if steepness <= 0:
                continue
            wanted = integers[:, index] - slopes[:, index] / (steepness * steps)
            change = rounded_to_integers(wanted, limit) - integers[:, index]
            rows = np.flatnonzero(change)
            if rows.size:
                moved = True
                integers[rows, index] += change[rows]
                slopes[rows] += (change * steps)[rows, np.newaxis] * curvature[index]
        if not moved:
            break
    return integers
