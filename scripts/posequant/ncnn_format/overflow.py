"""Whether integer arithmetic can overflow in an INT8 layer: bounds that hold for every input, from the weights alone.

ncnn computes 3x3 convolutions of stride and dilation 1 by Winograd's algorithm where it may, in F(4x4, 3x3) or
F(2x2, 3x3): kernel and input are transformed in int16, their products added up in int32, the sums transformed back in
int32 and divided by the transforms' common factor. Additions, subtractions and products in int32 wrap around, so what
overflows on the way there cancels out; only what stands before the division must fit. That is the factor times the
convolution itself, whose magnitude is at most 127 times the sum of the output channel's absolute weights. The bound is
sharp: inputs of 127 with the weights' signs reach it.

Sources: the transforms of Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, scaled to
integers as in ncnn's src/layer/x86/convolution_3x3_winograd_int8.h (the same on ARM); when ncnn uses them:
create_pipeline_int8_x86 in src/layer/x86/convolution_x86.cpp; the mark: get_masked_option in src/net.cpp.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.ncnn_format.model import Layer, Weights
from posequant.ncnn_format.products import matrices
from posequant.ncnn_format.window import Window

# Activations are clipped to it (ncnn: float2int8), and so are weights.
ACTIVATION_LIMIT = 127
INT16_LIMIT = 2**15 - 1
INT32_LIMIT = 2**31 - 1

# The layer parameter by which ncnn turns features off for one layer, and its bit for Winograd's algorithm.
FEATURE_MASK = 31
NO_WINOGRAD = 64


@dataclass(frozen=True)
class Winograd:
    """An integer form of Winograd's algorithm.

    Attributes:
        name: as in the literature.
        kernel: the kernel's transform G, int64 (tile, 3); a kernel g becomes G g G'.
        data: the input's transform B', int64 (tile, tile).
        factor: by how much the result is too large before the last division.
    """

    name: str
    kernel: NDArray[np.int64]
    data: NDArray[np.int64]
    factor: int


F43 = Winograd(
    "F(4x4, 3x3)",
    np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 6]]),
    np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
    576,
)
F23 = Winograd(
    "F(2x2, 3x3)",
    np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]),
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
    4,
)


@dataclass(frozen=True)
class Bound:
    """The largest magnitude that a quantity can reach in a layer.

    Attributes:
        quantity: what it is.
        channel: the output channel that reaches it.
        worst: the magnitude.
        limit: the largest one that its integer type holds.
    """

    quantity: str
    channel: int
    worst: int
    limit: int

    @property
    def exceeds(self) -> bool:
        """Whether an input exists for which the quantity overflows."""
        return self.worst > self.limit


def is_winograd_shaped(layer: Layer) -> bool:
    """Return whether ncnn may compute a layer by Winograd's algorithm: a 3x3 convolution of stride and dilation 1."""
    if layer.type != "Convolution":
        return False
    window = Window.of(layer)
    return window.kernel == (3, 3) and window.dilation == window.stride == (1, 1)


def is_winograd_safe(layer: Layer) -> bool:
    """Return whether the layer's line forbids Winograd's algorithm."""
    return bool(layer.integer(FEATURE_MASK) & NO_WINOGRAD)


def bounds(layer: Layer, weight: NDArray[np.int8]) -> list[Bound]:
    """Return how far each integer quantity that ncnn may form in an INT8 layer can grow, over all inputs.

    Args:
        layer: a convolution, depthwise convolution or inner product; for others see `product_bounds`.
        weight: its INT8 weights, one-dimensional, output channel after output channel.
    """
    found = direct_bounds(layer, weight)
    if is_winograd_shaped(layer) and not is_winograd_safe(layer):
        found += winograd_bounds(layer, weight)
    return found


def direct_bounds(layer: Layer, weight: NDArray[np.int8]) -> list[Bound]:
    """Return the bounds without Winograd's algorithm.

    They are of the int32 accumulator, and of the sum of two products that ncnn's kernels for ARM processors without
    dot products form in int16 (vmull_s8 and vmlal_s8 in src/layer/arm/convolution_im2col_gemm_int8.h).
    """
    return _sums(_channels(layer, weight))


def product_bounds(layer: Layer, weights: Weights) -> list[Bound]:
    """Return the bounds of a matrix product: of its sums over constant factors, and of those inside attention.

    Inside attention both factors come with magnitudes up to 127. A query by a key has as many terms as a head has
    channels. Probabilities by values have one for each token: no number of tokens below 133,000 can overflow.

    Args:
        layer: a Gemm or MultiHeadAttention layer.
        weights: its weights, INT8.
    """
    found = [bound for matrix in matrices(layer, weights).values() for bound in _sums(matrix.astype(np.int64))]
    worst = [
        max((bound for bound in found if bound.quantity == quantity), key=lambda bound: bound.worst)
        for quantity in (_ACCUMULATOR, _PAIR)
    ]
    if layer.type == "MultiHeadAttention":
        terms = layer.integer(0) // layer.integer(1, 1)
        worst.append(Bound("int32 query by key", 0, terms * ACTIVATION_LIMIT**2, INT32_LIMIT))
    return worst


def winograd_bounds(layer: Layer, weight: NDArray[np.int8]) -> list[Bound]:
    """Return the bounds in both forms of Winograd's algorithm: of the int16 transforms and of the int32 result."""
    channels = _channels(layer, weight)
    reach = ACTIVATION_LIMIT * np.abs(channels).sum(axis=1)
    kernels = channels.reshape(len(channels), -1, 3, 3)
    found = []
    for form in (F43, F23):
        transformed = form.kernel @ kernels @ form.kernel.T
        growth = np.abs(form.data).sum(axis=1).max() ** 2
        found += [
            _worst(f"{form.name} int16 kernel", np.abs(transformed).max(axis=(1, 2, 3)), INT16_LIMIT),
            _worst(f"{form.name} int16 input", np.full(len(channels), ACTIVATION_LIMIT * growth), INT16_LIMIT),
            _worst(f"{form.name} int32 result", form.factor * reach, INT32_LIMIT),
        ]
    return found


def needs_mark(layer: Layer, weights: Weights) -> bool:
    """Return whether some input makes a layer overflow in Winograd's algorithm, and its line does not forbid that.

    Args:
        layer: any layer; only an INT8 one can.
        weights: its weights.
    """
    if not layer.int8_term or not is_winograd_shaped(layer) or is_winograd_safe(layer):
        return False
    return any(bound.exceeds for bound in winograd_bounds(layer, weights["weight"]))


def mark_winograd_safe(layers: Iterable[Layer], weights: Iterable[Weights]) -> list[Layer]:
    """Return the layers, with Winograd's algorithm forbidden on the line of each that `needs_mark`.

    The others stay as they are. ncnn computes a marked layer directly, with the same result.
    """
    return [
        replace(layer, params={**layer.params, FEATURE_MASK: str(layer.integer(FEATURE_MASK) | NO_WINOGRAD)})
        if needs_mark(layer, values)
        else layer
        for layer, values in zip(layers, weights, strict=True)
    ]


_ACCUMULATOR, _PAIR = "int32 accumulator", "int16 pair of products"


def _sums(channels: NDArray[np.int64]) -> list[Bound]:
    """Return the bounds of sums of products of INT8 weights (channels, terms) with any activations."""
    magnitudes = np.abs(channels)
    return [
        _worst(_ACCUMULATOR, ACTIVATION_LIMIT * magnitudes.sum(axis=1), INT32_LIMIT),
        _worst(_PAIR, 2 * ACTIVATION_LIMIT * magnitudes.max(axis=1), INT16_LIMIT),
    ]


def _channels(layer: Layer, weight: NDArray[np.int8]) -> NDArray[np.int64]:
    return weight.astype(np.int64).reshape(layer.integer(0), -1)


def _worst(quantity: str, magnitudes: NDArray[Any], limit: int) -> Bound:
    channel = int(magnitudes.argmax())
    return Bound(quantity, channel, int(magnitudes[channel]), limit)
