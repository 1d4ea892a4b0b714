"""Which layers of an ncnn model can be quantized, and the scales of their weights."""

import sys
from collections.abc import Collection
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer, Weights, is_grouped
from posequant.ncnn_format.overflow import is_winograd_shaped
from posequant.ncnn_format.products import PRODUCTS, matrices
from posequant.quantize.thresholds import aciq_threshold

# INT8 Winograd adds up weights before it multiplies, so its weights get 6 bits (ncnn: tools/quantize/ncnn2table.cpp).
INT8_LIMIT = 127
WINOGRAD_LIMIT = 31

_Float = TypeVar("_Float", np.float32, np.float64)


def quantizable(layers: list[Layer], keep_float: Collection[str] = ()) -> list[Layer]:
    """Return the layers to calibrate and quantize: convolutions and inner products with weights of their own.

    Those are the layers that ncnn2table calibrates, without the `miscomputed` ones. The matrix products, which need no
    calibration, are those of `products`.

    Args:
        layers: the network's layers.
        keep_float: names of further layers to leave out, matrix products among them.

    Raises:
        InputError: if `keep_float` names another layer, or neither such a layer nor a matrix product is left.
    """
    found = [layer for layer in layers if _has_weights(layer)]
    multiplied = [layer for layer in layers if layer.type in PRODUCTS]
    if unknown := set(keep_float) - {layer.name for layer in (*found, *multiplied)}:
        raise InputError(
            f"no layer {min(unknown)} of the model can be quantized, so it cannot be kept in float either."
        )
    left_out = {*keep_float, *miscomputed(layers)}
    kept = [layer for layer in found if layer.name not in left_out]
    if not kept and not products(layers, keep_float):
        raise InputError("no layer is left to quantize. Keep fewer layers in float, or use the float model.")
    return kept


def products(layers: list[Layer], keep_float: Collection[str] = ()) -> list[Layer]:
    """Return the matrix products to quantize: those that the official ncnn2int8 quantizes, which are all.

    Args:
        layers: the network's layers.
        keep_float: names of layers to leave out.
    """
    return [layer for layer in layers if layer.type in PRODUCTS and layer.name not in keep_float]


def miscomputed(layers: list[Layer]) -> list[str]:
    """Return the names of the layers that ncnn computes wrongly in INT8: grouped convolutions that are not depthwise.

    ncnn 1.0.20261020 computes garbage for them on x86 where a group has a multiple of 8 channels, unless
    `Option.use_packing_layout` is off.
    """
    return [layer.name for layer in layers if _has_weights(layer) and is_grouped(layer)]


def warn_of_miscomputed(layers: list[Layer]) -> None:
    """Say on stderr which layers of a network are `miscomputed`, if any, and so stay in float."""
    if names := miscomputed(layers):
        print(
            f"notice: kept in float, as ncnn computes grouped convolutions wrongly in INT8: {' '.join(names)}",
            file=sys.stderr,
        )


def _has_weights(layer: Layer) -> bool:
    convolution = layer.type in ("Convolution", "ConvolutionDepthWise") and not layer.integer(19)
    return convolution or layer.type == "InnerProduct"


def weight_scale_count(layer: Layer) -> int:
    """Return how many weight scales a quantizable layer has: one per group if depthwise, else per output channel."""
    return layer.integer(7, 1) if layer.type == "ConvolutionDepthWise" else layer.integer(0)


def weight_limit(layer: Layer) -> int:
    """Return the largest INT8 value for a layer's weights: 31 for 3x3 convolutions of stride and dilation 1, or 127."""
    return WINOGRAD_LIMIT if is_winograd_shaped(layer) else INT8_LIMIT


def rounded_to_integers(scaled: NDArray[_Float], limit: int = INT8_LIMIT) -> NDArray[_Float]:
    """Return `scaled` values as ncnn rounds them, halves away from zero: sign(x) * floor(|x| + 0.5), within the limit.

    Args:
        scaled: floats of any shape.
        limit: the largest magnitude of an integer.

    Returns:
        Whole numbers, in the shape and the type of `scaled`.
    """
    rounded: NDArray[_Float] = np.sign(scaled) * np.floor(np.abs(scaled) + scaled.dtype.type(0.5))
    return np.clip(rounded, -limit, limit, out=rounded)


def weight_scales(layer: Layer, weight: NDArray[np.floating], method: str) -> NDArray[np.float32]:
    """Return the weight scales of a quantizable layer, as ncnn2table computes them.

    Args:
        layer: the layer.
        weight: its weights, float, in ncnn's order.
        method: `kl`, where the largest weight meets the limit, or `aciq`, which clips.

    Returns:
        Factors from a weight to its INT8 value, float32 (`weight_scale_count(layer)`,). A channel whose weights are all
        zero gets 1; ncnn2table writes infinity.
    """
    channels = weight.astype(np.float32).reshape(weight_scale_count(layer), -1)
    limit = weight_limit(layer)
    if method == "kl":
        return absmax_scales(channels, limit)
    largest = np.abs(channels).max(axis=1)
    threshold = aciq_threshold(largest, channels.shape[1], bits=6 if limit == WINOGRAD_LIMIT else 8)
    return _scales(threshold, limit)


def product_scales(layer: Layer, weights: Weights) -> dict[str, NDArray[np.float32]]:
    """Return the scales of a matrix product's constant factors, by which their largest magnitude becomes 127.

    A Gemm's first factor has one for each row, its second one for all, as ncnn's arithmetic wants it. Of attention, the
    weights of query, key and value have one for each output, and those of the output one for all.

    Those of attention are what ncnn2table writes, those of a Gemm what ncnn2int8 finds, but for one thing. Of a second
    factor that is stored transposed, as pnnx stores it, the official tool looks at the first output's weights alone,
    and clips all others to their range.

    Args:
        layer: a Gemm, MultiHeadAttention or SDPA layer.
        weights: its float weights.

    Returns:
        For each of the layer's `matrices`, by name, float32 (rows,) or (1,).
    """
    found = {name: values.astype(np.float32) for name, values in matrices(layer, weights).items()}
    return {
        name: absmax_scales(values.reshape(1, -1) if name in ("b", "out_weight") else values, INT8_LIMIT)
        for name, values in found.items()
    }


def absmax_scales(channels: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    """Return the scales by which each channel's largest weight becomes `limit`; 1 where all are zero.

    Args:
        channels: weights, float32 (C, n).
        limit: the largest INT8 value.

    Returns:
        float32 (C,).
    """
    return _scales(np.abs(channels).max(axis=1), limit)


def _scales(threshold: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    scales: NDArray[np.float32] = np.ones_like(threshold)
    np.divide(np.float32(limit), threshold, out=scales, where=threshold != 0)
    return scales
