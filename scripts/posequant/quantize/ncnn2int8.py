"""Quantize an ncnn model to INT8, byte for byte as ncnn's own ncnn2int8 does.

The steps are those of ncnn's `tools/quantize/ncnn2int8.cpp`, the files those of its `tools/modelwriter.h`. What that
tool passes over in silence is an error here. It differs in five things. Embeddings stay in float, and so do the layers
that ncnn computes wrongly in INT8. A layer whose weights can make INT8 Winograd overflow is marked, so that ncnn
computes it directly (the 6-bit weights of ncnn2table rarely can). The second factor of a matrix product is scaled by
all of its weights (see `product_scales`). A value to pad with is rounded as what it pads is.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ncnn
import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import whole
from posequant.ncnn_format.model import (
    INT8_TERM,
    PAD_VALUE,
    Layer,
    NcnnModel,
    Weights,
    array_key,
    format_param,
    weight_slots,
)
from posequant.ncnn_format.overflow import mark_winograd_safe
from posequant.ncnn_format.products import matrices, scales_of, with_rows
from posequant.quantize.official_tools import run_ncnn2int8
from posequant.quantize.table import CalibrationTable
from posequant.quantize.weights import (
    miscomputed,
    product_scales,
    products,
    quantizable,
    rounded_to_integers,
    warn_of_miscomputed,
)

# Added to the INT8 mark of a layer whose output is requantized for the layers that read it.
REQUANTIZED = 100


def quantize_files(
    param: Path,
    bin_: Path,
    table: Path,
    out_param: Path,
    out_bin: Path,
    *,
    keep_float: Collection[str] = (),
    tool: str | None = None,
) -> list[str]:
    """Quantize a model by a calibration table and write the INT8 model: both files, or none.

    A layer that could overflow in INT8 Winograd is marked, whoever quantized it: see `mark_winograd_safe`.

    Args:
        param: the float model's `.param`.
        bin_: its `.bin`, with float32 or float16 weights.
        table: the calibration table.
        out_param: the INT8 `.param` to write.
        out_bin: the INT8 `.bin` to write.
        keep_float: names of layers to leave in float, whether or not the table has their lines.
        tool: the official ncnn2int8 to run in place of `quantize`. It quantizes all matrix products.

    Returns:
        The names of the layers that are INT8.

    Raises:
        InputError: if a file is missing or damaged, the table cannot quantize the model (`CalibrationTable.check` and
            `check_weights`), the model is INT8 already, or `tool` fails, leaves out a layer or is to leave out a matrix
            product.
    """
    model = NcnnModel.read(param, bin_)
    if marked := [layer.name for layer in model.layers if layer.int8_term]:
        raise InputError(f"{param}: layer {marked[0]} is INT8 already. Give the float model.")
    warn_of_miscomputed(model.layers)
    # A table of the official ncnn2table has their lines.
    scales = CalibrationTable.read(table).without(miscomputed(model.layers))
    scales.check(model.layers, keep_float, table)
    scales = scales.without(keep_float)
    scales.check_weights(model, table)
    _check_splits(model.layers, scales, table)
    if tool and (kept := [layer.name for layer in products(model.layers) if layer.name in keep_float]):
        raise InputError(f"{tool}: it quantizes every matrix product, so {kept[0]} cannot stay in float. Name no tool.")
    int8 = {layer.name for layer in (*quantizable(model.layers, keep_float), *products(model.layers, keep_float))}
    names = [layer.name for layer in model.layers if layer.name in int8]
    with whole(out_param) as draft_param, whole(out_bin) as draft_bin:
        if tool is None:
            quantize(model, scales, keep_float).write(draft_param, draft_bin)
        else:
            run_ncnn2int8(tool, param, bin_, scales, out=(draft_param, draft_bin))
        written = NcnnModel.read(draft_param, draft_bin)
        if left := set(names) - {layer.name for layer in written.layers if layer.int8_term}:
            raise InputError(f"{tool}: it left layer {min(left)} in float, although the table has its scales.")
        padded = (
            written.layers
            if tool is None
            else [
                padded_in_int8(layer, scales.activation_scales[layer.name])
                if layer.name in scales.activation_scales
                else layer
                for layer in written.layers
            ]
        )
        safe = mark_winograd_safe(padded, written.weights)
        if safe != written.layers:
            draft_param.write_text(format_param(safe))
    return names


def quantize(
    model: NcnnModel, table: CalibrationTable, keep_float: Collection[str] = (), *, requantize: bool = True
) -> NcnnModel:
    """Return the INT8 model of a float model.

    Args:
        model: the float model.
        table: the scales of the layers to quantize, checked by `CalibrationTable.check`.
        keep_float: names of matrix products that stay in float, as a table does not say which do.
        requantize: whether a layer hands on INT8 where all layers that read it are quantized, as ncnn2int8 has it; else
            all outputs are float.

    Returns:
        The model whose layers in `table` and whose other matrix products have INT8 weights and scales; the weights of
        the others are float16.
    """
    multiplied = {layer.name for layer in products(model.layers, keep_float)}
    requantized = _requantized(model.layers, table) if requantize else {}
    layers, weights = [], []
    for layer, values in zip(model.layers, model.weights, strict=True):
        if layer.name in table.activation_scales:
            scales = table.weight_scales[layer.name], table.activation_scales[layer.name]
            layer, values = quantize_layer(layer, values, *scales, requantized.get(layer.name))
        elif layer.name in multiplied:
            layer, values = quantize_product(layer, values, table.attention_scales.get(layer.name))
        layers.append(replace(layer, params=_official_params(layer)))
        weights.append(stored(layer, values))
    return NcnnModel(layers, weights)


def quantize_layer(
    layer: Layer,
    weights: Weights,
    weight_scales: NDArray[np.float32],
    activation_scale: np.float32,
    requantize_scale: np.float32 | None = None,
) -> tuple[Layer, Weights]:
    """Return a layer and its weights in INT8.

    Args:
        layer: a quantizable layer.
        weights: its float weights.
        weight_scales: factors from a weight to INT8, float32, one for each output channel or depthwise group.
        activation_scale: the factor from its input to INT8.
        requantize_scale: that of the layers that read its output, where it leaves in INT8; None where in float.
    """
    term = (1 if layer.type == "ConvolutionDepthWise" else 2) + (0 if requantize_scale is None else REQUANTIZED)
    scales = {
        "weight_scales": weight_scales,
        "bottom_scales": np.atleast_1d(activation_scale),
        "top_scales": np.atleast_1d(np.float32(requantize_scale or 0)),
    }
    int8 = quantized(weights["weight"].astype(np.float32), weight_scales)
    layer = padded_in_int8(layer, activation_scale)
    params = {**layer.params, INT8_TERM[layer.type]: str(term)}
    return replace(layer, params=params), {**weights, **scales, "weight": int8}


def padded_in_int8(layer: Layer, activation_scale: np.float32) -> Layer:
    """Return a float layer with the value that it is padded with in INT8: ncnn pads what is rounded already.

    The official ncnn2int8 leaves the value as it is.
    """
    if not _is_convolution(layer) or not (value := layer.real(PAD_VALUE)):
        return layer
    (rounded,) = rounded_to_integers(np.array([value], np.float32) * activation_scale)
    return replace(layer, params={**layer.params, PAD_VALUE: str(int(rounded))})


def quantize_product(
    layer: Layer, weights: Weights, scales: Mapping[str, NDArray[np.float32]] | None = None
) -> tuple[Layer, Weights]:
    """Return a matrix product and its constant factors in INT8. A Gemm's are stored with a row for each output.

    Args:
        layer: a Gemm, MultiHeadAttention or SDPA layer.
        weights: its float weights.
        scales: of its constant factors, by name, as a calibration table holds those of attention; those of
            `product_scales` where it is None.
    """
    factors = matrices(layer, weights)
    scales = product_scales(layer, weights) if scales is None else scales
    int8 = {name: quantized(values.astype(np.float32).ravel(), scales[name]) for name, values in factors.items()}
    params = {**with_rows(layer, factors), INT8_TERM[layer.type]: "2"}
    return replace(layer, params=params), {
        **weights,
        **int8,
        **{scales_of(name): found for name, found in scales.items()},
    }


def quantized(weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return weights as INT8: sign(x) * floor(|x| + 0.5) for x = weight * scale in float32, within -127 and 127.

    Args:
        weight: float32, one-dimensional, channel after channel.
        scales: float32, one for each channel.
    """
    scaled = weight.reshape(len(scales), -1) * scales[:, np.newaxis]
    return rounded_to_integers(scaled).astype(np.int8).ravel()


def stored(layer: Layer, weights: Weights) -> Weights:
    """Return the weights of a layer as ncnn2int8 stores them: INT8 as they are, others in float16 or float32."""
    return {slot.name: _stored(weights[slot.name], slot.tagged) for slot in weight_slots(layer)}


def _stored(values: NDArray[Any], tagged: bool) -> NDArray[Any]:
    """Return a weight as ncnn2int8 stores it: what is not INT8 in float16 if it has a tag, otherwise in float32."""
    if values.dtype == np.int8:
        return values
    values = values.astype(np.float32)
    if tagged:
        # By ncnn's own conversion, which rounds the last few values of an array in another way than the rest.
        return np.array(ncnn.cast_float32_to_float16(ncnn.Mat(values).clone()))
    values[np.abs(values) < 1e-30] = 0
    return values


def _convolutions_after(layers: list[Layer]) -> dict[str, list[Layer]]:
    """Return, for each convolution, the convolutions that read its output, if nothing else does.

    They read it directly, or through one Split (ncnn2int8: fuse_requantize).
    """
    readers = {blob: layer for layer in layers for blob in layer.bottoms}
    after: dict[str, list[Layer]] = {}
    for layer in layers:
        reader = readers.get(layer.tops[0]) if _is_convolution(layer) else None
        following = [readers.get(blob) for blob in reader.tops] if reader and reader.type == "Split" else [reader]
        convolutions = [one for one in following if one and _is_convolution(one) and len(one.bottoms) == 1]
        if len(convolutions) == len(following):
            after[layer.name] = convolutions
    return after


def _is_convolution(layer: Layer) -> bool:
    return layer.type in ("Convolution", "ConvolutionDepthWise")


def _requantized(layers: list[Layer], table: CalibrationTable) -> dict[str, np.float32]:
    """Return the layers whose output stays INT8, with the scale of its reader: all of them must be quantized."""
    scales = table.activation_scales
    return {
        name: scales[readers[0].name]
        for name, readers in _convolutions_after(layers).items()
        if name in scales and all(reader.name in scales for reader in readers)
    }


def _check_splits(layers: list[Layer], table: CalibrationTable, source: Path) -> None:
    """Refuse scales that differ between the readers of one requantized output, of which ncnn keeps the first only."""
    readers_of = _convolutions_after(layers)
    for name, scale in _requantized(layers, table).items():
        for reader in readers_of[name]:
            if table.activation_scales[reader.name] != scale:
                raise InputError(
                    f"{source}: layers {readers_of[name][0].name} and {reader.name} both read the output of layer "
                    f"{name}, but their activation scales differ. Give them one scale, or run ncnn2table again."
                )


class _Param(NamedTuple):
    """A parameter as ncnn's writer knows it: written only where it differs from its default."""

    key: int
    # An empty tuple stands for an array of floats.
    default: int | float | tuple[()] = 0
    # The key of the parameter whose value is the default, as that of the width is for the height.
    like: int | None = None


def _convolution_params(*middle: _Param, dynamic: int) -> tuple[_Param, ...]:
    return (
        *(_Param(0), _Param(1), _Param(11, like=1), _Param(2, 1), _Param(12, like=2), _Param(3, 1), _Param(13, like=3)),
        *(_Param(4), _Param(14, like=4), _Param(15, like=4), _Param(16, like=14)),
        *middle,
        *(_Param(9), _Param(10, ()), _Param(dynamic)),
    )


_DECONVOLUTION = (_Param(18), _Param(19, like=18), _Param(20), _Param(21, like=20), _Param(5), _Param(6))

# In the order of tools/modelwriter.h, with the defaults of load_param in src/layer/*.cpp. Layers of other types keep
# their parameters as they are, which to ncnn is the same.
_PARAMS = {
    "Convolution": _convolution_params(_Param(18, 0.0), _Param(5), _Param(6), _Param(8), dynamic=19),
    "ConvolutionDepthWise": _convolution_params(
        _Param(18, 0.0), _Param(5), _Param(6), _Param(7, 1), _Param(8), dynamic=19
    ),
    "Deconvolution": _convolution_params(*_DECONVOLUTION, dynamic=28),
    "DeconvolutionDepthWise": _convolution_params(*_DECONVOLUTION, _Param(7, 1), dynamic=28),
    "InnerProduct": (_Param(0), _Param(1), _Param(2), _Param(8), _Param(9), _Param(10, ())),
    "Input": (_Param(0), _Param(1), _Param(2)),
    "BinaryOp": (_Param(0), _Param(1), _Param(2, 0.0)),
    "UnaryOp": (_Param(0),),
    "ReLU": (_Param(0, 0.0),),
    "Concat": (_Param(0),),
    "Interp": (_Param(0), _Param(1, 1.0), _Param(2, 1.0), _Param(3), _Param(4), _Param(5), _Param(6)),
    "Gemm": (
        *(_Param(0, 1.0), _Param(1, 1.0), *(_Param(key) for key in range(2, 15)), _Param(18)),
        *(_Param(20), _Param(21), _Param(22)),
    ),
    # To the writer the default is a layer without inputs, so sizes and scale are always written.
    "MultiHeadAttention": (
        *(_Param(0), _Param(1, 1), _Param(2), _Param(3), _Param(4), _Param(5), _Param(6, math.inf)),
        *(_Param(7), _Param(18)),
    ),
    "SDPA": (_Param(5), _Param(6, 0.0), _Param(7), _Param(18)),
    "MatMul": (_Param(0),),
    "LayerNorm": (_Param(0), _Param(1, 0.001), _Param(2, 1)),
    "GELU": (_Param(0),),
    "Permute": (_Param(0),),
    "Pooling": (
        *(_Param(0), _Param(1), _Param(11, like=1), _Param(2, 1), _Param(12, like=2)),
        *(_Param(3), _Param(13, like=3), _Param(14, like=3), _Param(15, like=13)),
        *(_Param(4), _Param(5), _Param(6), _Param(7), _Param(8), _Param(18, like=8)),
    ),
}


def _official_params(layer: Layer) -> dict[int, str]:
    """Return the parameters of a layer in the order and form in which ncnn's writer puts them."""
    known = _PARAMS.get(layer.type, ())
    if layer.type == "MultiHeadAttention":
        layer = replace(layer, params={**_attention_defaults(layer), **layer.params})
    params: dict[int, str] = {}
    integers: dict[int, int] = {}
    for key, default, like in known:
        if isinstance(default, tuple):
            if reals := layer.reals(key):
                params[array_key(key)] = ",".join((str(len(reals)), *map(_real, reals)))
        elif isinstance(default, float):
            if (real := layer.real(key, default)) != default:
                params[key] = _real(real)
        else:
            expected = default if like is None else integers[like]
            integers[key] = layer.integer(key, expected)
            if integers[key] != expected:
                params[key] = str(integers[key])
    keys = {key for param in known for key in (param.key, array_key(param.key))}
    return params | {key: text for key, text in layer.params.items() if key not in keys}


def _attention_defaults(layer: Layer) -> dict[int, str]:
    """Return what ncnn reads of attention where its line leaves out sizes and scale: they depend on others."""
    embedding = layer.integer(0)
    scale = np.float32(1) / np.sqrt(np.float32(embedding // layer.integer(1, 1)))
    return {3: str(embedding), 4: str(embedding), 6: _real(float(scale))}


def _real(value: float) -> str:
    return f"{np.float32(value):e}"
