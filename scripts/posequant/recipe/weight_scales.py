"""The step `weights`: how many bits weights get, and how each output channel is scaled."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from posequant.quantize.weights import INT8_LIMIT, absmax_scales, rounded_to_integers, weight_limit, weight_scale_count
from posequant.recipe.draft import Draft, Floats, representable
from posequant.workflow.settings.recipe import WeightsStep

# Shares of a channel's largest weight that may be clipped to.
CLIPS = np.linspace(0.4, 1.0, 61, dtype=np.float32)


def scale_weights(draft: Draft, crops: Sequence[Floats], threads: int, settings: WeightsStep) -> Draft:
    """Choose the weight scales of all layers.

    Args:
        draft: the draft.
        crops: not looked at.
        threads: not used.
        settings: with 6 `bits`, 3x3 convolutions of stride 1 get weights from -31 to 31, as by ncnn2table, so that INT8
            Winograd does not overflow; with 8, all layers get weights from -127 to 127. `scales` are by `absmax`, or by
            `mse`: the rounded weights of a channel then differ least from the float ones.
    """
    found, limits = {}, {}
    for layer in draft.layers:
        limit = weight_limit(layer) if settings.bits == 6 else INT8_LIMIT
        channels = draft.model.named(layer.name)[1]["weight"].astype(np.float32).reshape(weight_scale_count(layer), -1)
        best = absmax_scales(channels, limit) if settings.scales == "absmax" else mse_scales(channels, limit)
        found[layer.name], limits[layer.name] = representable(best), limit
    return replace(
        draft, weight_scales={**draft.weight_scales, **found}, weight_limits={**draft.weight_limits, **limits}
    )


def mse_scales(channels: Floats, limit: int) -> Floats:
    """Return the scales by which the rounded and clipped weights of each channel differ least from the float ones.

    Tried are those that clip at a share of the largest weight (Choukroun and others: Low-bit Quantization of Neural
    Networks for Efficient Inference, 2019, minimise the same mean squared error).

    Args:
        channels: weights, float32 (C, n).
        limit: the largest INT8 value.

    Returns:
        float32 (C,).
    """
    widest = absmax_scales(channels, limit)
    best, least = widest, np.full(len(channels), np.inf)
    for clip in CLIPS[::-1]:
        scales = widest / clip
        error = rounding_errors(channels, scales, limit)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def rounding_errors(channels: Floats, scales: Floats, limit: int) -> NDArray[np.float64]:
    """Return the summed squared error of each channel's weights when they are rounded, float64 (C,)."""
    factors = scales[:, np.newaxis]
    rounded = rounded_to_integers(channels * factors, limit) / factors
    errors: NDArray[np.float64] = np.square(rounded - channels, dtype=np.float64).sum(axis=1)
    return errors
