"""What an ncnn network really computes with: each layer's bits, kernel and work, and how far its sums can grow."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.ncnn_format.model import MATRICES, Layer, NcnnModel, Weights
from posequant.ncnn_format.overflow import Bound, bounds, is_winograd_safe, is_winograd_shaped, product_bounds
from posequant.ncnn_format.products import PRODUCTS
from posequant.ncnn_format.window import Window
from posequant.networks.ncnn import NcnnNetwork

_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise")


@dataclass(frozen=True)
class LayerRecord:
    """One layer with weights.

    Attributes:
        name: its name in the `.param`.
        kernel: the class of kernel that ncnn computes it with.
        stored: how the weights are stored: int8, float16 or float32.
        bits: how many bits its INT8 weights fill, sign included: 6 for weights within -31 and 31; None in float.
        weights: the least and the greatest of its INT8 weights.
        levels: how many different values they have.
        activation_scale: factor from its input to INT8; None in float and for a matrix product, which scales its inputs
            as they come.
        macs: multiply-accumulate operations for one crop.
        bounds: how far its integer quantities can grow.
        winograd_safe: whether its line forbids Winograd's algorithm.
        can_overflow: whether some input makes it overflow.
    """

    name: str
    kernel: str
    stored: str
    bits: int | None
    weights: tuple[int, int] | None
    levels: int | None
    activation_scale: float | None
    macs: int
    bounds: list[Bound]
    winograd_safe: bool
    can_overflow: bool


def arithmetic(
    param: Path,
    bin_: Path,
    network: NcnnNetwork,
    crops: NDArray[np.float32],
    outputs: Sequence[NDArray[np.float32]],
) -> dict[str, Any]:
    """Return what a certificate says of the arithmetic: `layers`, `work` and `overflow`.

    Args:
        param: the INT8 model's `.param`.
        bin_: its `.bin`.
        network: the same, loaded, with or without Winograd's algorithm, as it is by default.
        crops: float32 (N, 3, H, W), which are run the other way.
        outputs: what they give by default. Where nothing overflows both give the same bits, on the CPU.

    Raises:
        InputError: a file is missing or damaged.
    """
    records = describe_layers(NcnnModel.read(param, bin_), network)
    other_way = NcnnNetwork(
        param,
        bin_,
        "int8",
        network.input_shape,
        network.output_shapes,
        int8_winograd=network.device is None,
        device=network.device,
    ).forward_on_threads(crops, 1)
    return {
        "layers": [asdict(record) for record in records],
        "work": totals(records),
        "overflow": {
            "can_overflow": [record.name for record in records if record.can_overflow],
            "winograd_safe": [record.name for record in records if record.winograd_safe],
            "winograd_on_and_off": agreement(other_way, outputs),
        },
    }


def float_arithmetic(
    param: Path,
    bin_: Path,
    network: NcnnNetwork,
    crops: NDArray[np.float32],
    outputs: Sequence[NDArray[np.float32]],
) -> dict[str, Any]:
    """Return what a certificate says of the arithmetic of a network without INT8: `layers`, `work`, `as_fp32`.

    What ncnn really computes with in fp16 or bf16 depends on the processor. So the same files are run in fp32, too:
    where that gives the same bits, the processor computes in float32, and only the stored weights are of reduced
    precision.

    Args:
        param: the model's `.param`.
        bin_: its `.bin`.
        network: the same, loaded in fp16 or bf16.
        crops: float32 (N, 3, H, W), which are run in fp32.
        outputs: what they give in fp16 or bf16.

    Raises:
        InputError: a file is missing or damaged.
    """
    records = describe_layers(NcnnModel.read(param, bin_), network)
    full = NcnnNetwork(param, bin_, "fp32", network.input_shape, network.output_shapes, device=network.device)
    as_fp32 = full.forward_on_threads(crops, 1)
    return {
        "layers": [asdict(record) for record in records],
        "work": totals(records),
        "overflow": None,
        "as_fp32": agreement(outputs, as_fp32),
    }


def agreement(one: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """Return whether two runs on the same crops give the same bits.

    Returns:
        Number of `crops`; `largest_difference` between the outputs of the two; `equal`, whether there is none.
    """
    largest = max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(one, other, strict=True))
    return {"crops": len(one[0]), "largest_difference": largest, "equal": largest == 0}


def describe_layers(model: NcnnModel, network: NcnnNetwork) -> list[LayerRecord]:
    """Return the record of each convolution, deconvolution, inner product and matrix product with weights of its own.

    Args:
        model: the model.
        network: the same, loaded; it runs once, to see how large the layers' outputs are.
    """
    weighted = [
        (layer, weights)
        for layer, weights in zip(model.layers, model.weights, strict=True)
        if MATRICES & weights.keys() and layer.type in (*_CONVOLUTIONS, "InnerProduct", *PRODUCTS)
    ]
    wanted = {blob for layer, _ in weighted for blob in _counting_blobs(layer)}
    blobs = [top for layer in model.layers for top in layer.tops if top in wanted]
    maps = network.activations(np.zeros(network.input_shape, np.float32), blobs)
    shapes = {blob: values.shape for blob, values in zip(blobs, maps, strict=True)}
    return [
        _describe(layer, weights, _macs(layer, weights, [shapes[blob] for blob in _counting_blobs(layer)]))
        for layer, weights in weighted
    ]


def kernel_class(layer: Layer) -> str:
    """Return the class of kernel of a layer in words."""
    if layer.type == "InnerProduct":
        return "inner product"
    if layer.type in PRODUCTS:
        return "matrix product" if layer.type == "Gemm" else "attention"
    window = Window.of(layer)
    size = f"{window.kernel[1]}x{window.kernel[0]}"
    if "Deconvolution" in layer.type:
        return f"{'depthwise ' if layer.type.endswith('DepthWise') else ''}deconvolution {size}"
    if layer.type == "ConvolutionDepthWise":
        return f"depthwise {size}"
    if is_winograd_shaped(layer):
        return f"{size} stride 1, {'direct' if is_winograd_safe(layer) else 'Winograd'}"
    stride = window.stride[1]
    return size if size == "1x1" and stride == 1 else f"{size} stride {stride}"


def totals(records: list[LayerRecord]) -> dict[str, Any]:
    """Return how much of the network's work is INT8, and with how many bits.

    Returns:
        `macs` of all layers; `int8`, their share in INT8; `bits`, the share of each number of bits; `float`, the rest.
    """
    macs = sum(record.macs for record in records)
    bits = {
        str(width): sum(record.macs for record in records if record.bits == width) / macs
        for width in sorted({record.bits for record in records if record.bits})
    }
    int8 = sum(record.macs for record in records if record.bits) / macs
    return {"macs": macs, "int8": int8, "float": 1 - int8, "bits": bits}


def _counting_blobs(layer: Layer) -> tuple[str, ...]:
    """Return the blobs that tell how often a layer's kernel is applied."""
    if layer.type == "MultiHeadAttention":
        return layer.bottoms
    return layer.bottoms[:1] if "Deconvolution" in layer.type else layer.tops[:1]


def _macs(layer: Layer, weights: Weights, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the multiply-accumulate operations of a layer, by the shapes of its `_counting_blobs`."""
    shape = shapes[0]
    match layer.type:
        case "Gemm":
            return int(np.prod(shape)) * layer.integer(9)
        case "MultiHeadAttention":
            # One, two or three inputs, then the mask if there is one: queries, keys, values; the last stands for more.
            given = shapes[: len(shapes) - bool(layer.integer(5))]
            queries, keys = given[0][0], given[min(1, len(given) - 1)][0]
            own = {"q_weight": queries, "k_weight": keys, "v_weight": keys, "out_weight": queries}
            inside = 2 * queries * keys * layer.integer(0)
            return inside + sum(tokens * weights[name].size for name, tokens in own.items())
        case "InnerProduct":
            # A row takes all weights once.
            return int(np.prod(shape[:-1])) * weights["weight"].size
    # Of a map (channels, height, width) every place takes all weights once.
    return int(np.prod(shape[1:])) * weights["weight"].size


def _describe(layer: Layer, weights: Weights, macs: int) -> LayerRecord:
    factors = [weights[name] for name in sorted(MATRICES & weights.keys())]
    common: dict[str, Any] = {
        "name": layer.name,
        "kernel": kernel_class(layer),
        "stored": factors[0].dtype.name,
        "macs": macs,
        "winograd_safe": is_winograd_safe(layer),
    }
    if not layer.int8_term:
        return LayerRecord(
            **common, bits=None, weights=None, levels=None, activation_scale=None, bounds=[], can_overflow=False
        )
    found = product_bounds(layer, weights) if layer.type in PRODUCTS else bounds(layer, weights["weight"])
    least, greatest = min(int(factor.min()) for factor in factors), max(int(factor.max()) for factor in factors)
    return LayerRecord(
        **common,
        bits=max(-least, greatest).bit_length() + 1,
        weights=(least, greatest),
        levels=len(np.unique(np.concatenate(factors))),
        activation_scale=float(weights["bottom_scales"][0]) if "bottom_scales" in weights else None,
        bounds=found,
        can_overflow=any(bound.exceeds for bound in found),
    )
