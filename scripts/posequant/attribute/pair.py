"""A float network and the INT8 network that was made of it, layer beside layer."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.signal import Powers
from posequant.ncnn_format.model import INT8_TERM, Layer, NcnnModel, Weights
from posequant.ncnn_format.products import PRODUCTS, matrices, scales_of, with_rows
from posequant.quantize.ncnn2int8 import REQUANTIZED, quantized
from posequant.quantize.weights import INT8_LIMIT, absmax_scales, weight_scale_count

Floats = NDArray[np.float32]

# Weights of another network are at -3 dB where they are as large; those rounded to 6 bits were 25 dB and better.
MIN_WEIGHT_SQNR_DB = 3.0

_HINT = "Give the float model that it was quantized from; where a recipe made it, the recipe's reference"


@dataclass(frozen=True)
class Pair:
    """The two networks.

    Attributes:
        full: the float network.
        int8: the INT8 network: the same layers, some of them INT8.
    """

    full: NcnnModel
    int8: NcnnModel

    @classmethod
    def read(cls, param: Path, bin_: Path, int8_param: Path, int8_bin: Path) -> "Pair":
        """Read both networks, each from its two files.

        Raises:
            InputError: a file is missing or damaged, the first network is INT8, the second has nothing in INT8, or
                they do not belong together: other layers, or weights that are not nearly those of the float layer.
        """
        pair = cls(NcnnModel.read(param, bin_), NcnnModel.read(int8_param, int8_bin))
        if marked := [layer.name for layer in pair.full.layers if layer.int8_term]:
            raise InputError(f"{param}: layer {marked[0]} is INT8. Give the float model.")
        if not any(layer.int8_term for layer in pair.int8.layers):
            raise InputError(f"{int8_param}: no layer is marked as INT8. Quantize the model first.")
        graphs = [
            [(layer.type, layer.name, layer.bottoms, layer.tops) for layer in model.layers]
            for model in (pair.full, pair.int8)
        ]
        if graphs[0] != graphs[1]:
            raise InputError(f"{int8_param}: not the layers of {param}. {_HINT}.")
        for layer, weights in zip(pair.full.layers, pair.full.weights, strict=True):
            there = _factors(*pair.dequantized(layer.name))
            for name, full in _factors(layer, weights).items():
                _require_near(full, there[name], layer, param, int8_param)
        return pair

    def alone(self, name: str) -> tuple[Layer, Weights]:
        """Return a layer of the INT8 network by itself: its output is float even where the next layer takes INT8."""
        layer, weights = self.int8.named(name)
        if layer.int8_term <= REQUANTIZED:
            return layer, weights
        return replace(
            layer, params={**layer.params, INT8_TERM[layer.type]: str(layer.int8_term - REQUANTIZED)}
        ), weights

    def dequantized(self, name: str) -> tuple[Layer, Weights]:
        """Return a layer of the INT8 network that computes in float, with the values that its INT8 weights stand for.

        A layer that is not INT8 is as it is, with weights in float16.
        """
        layer, weights = self.int8.named(name)
        if not layer.int8_term:
            return layer, weights
        if layer.type in PRODUCTS:
            params = {key: text for key, text in layer.params.items() if key != INT8_TERM[layer.type]}
            factors = {
                name: _dequantized(values.ravel(), weights[scales_of(name)])
                for name, values in matrices(layer, weights).items()
            }
            plain = replace(layer, params=params)
            return replace(plain, params=with_rows(plain, factors)), {**weights, **factors}
        weight = _dequantized(weights["weight"], weights["weight_scales"])
        return self.full.named(name)[0], {**weights, "weight": weight}

    def in_8_bits(self, name: str) -> tuple[Layer, Weights]:
        """Return an INT8 layer that computes in float with the float network's weights, rounded to 8 bits.

        The largest weight of each channel becomes 127, as ncnn2table has it for all but the layers that it gives 6
        bits. Biases are the float network's.
        """
        layer, weights = self.full.named(name)
        if layer.type in PRODUCTS:
            # Its factors have 8 bits, or are all zero.
            return self.dequantized(name)
        values = weights["weight"].astype(np.float32)
        channels = values.reshape(weight_scale_count(layer), -1)
        scales = absmax_scales(channels, INT8_LIMIT)
        return layer, {**weights, "weight": _dequantized(quantized(values, scales), scales)}

    def rounded_input(self, name: str, values: Floats, place: int = 0) -> Floats:
        """Return an input of an INT8 layer as the layer sees it: rounded to INT8, and scaled back to float32.

        A matrix product scales it as it comes: the first factor row by row, others as a whole (in SDPA head by head).
        What is rounded inside attention is not an input.

        Args:
            name: the layer's name.
            values: the input.
            place: which of its `factors_among` its inputs it is.
        """
        layer, weights = self.int8.named(name)
        if layer.type not in PRODUCTS:
            scale = weights["bottom_scales"]
            return _dequantized(quantized(values.ravel(), scale), scale).reshape(values.shape)
        columns = layer.type == "Gemm" and place == 0 and not layer.integer(4) and layer.integer(2)
        rows = values.swapaxes(0, -1) if columns else values
        parts = rows.reshape(_scaled_parts(layer, place, rows.shape), -1)
        scales = absmax_scales(parts, INT8_LIMIT)
        rounded = _dequantized(quantized(parts.ravel(), scales), scales).reshape(rows.shape)
        return np.ascontiguousarray(rounded.swapaxes(0, -1) if columns else rounded)


def factors_among(layer: Layer) -> tuple[str, ...]:
    """Return those inputs of an INT8 layer that it rounds: of a matrix product not what it adds, nor a mask."""
    match layer.type:
        case "Gemm":
            return layer.bottoms[: 2 - layer.integer(4) - layer.integer(5)]
        case "MultiHeadAttention":
            return layer.bottoms[: len(layer.bottoms) - bool(layer.integer(5))]
        case "SDPA":
            return layer.bottoms[:3]
    return layer.bottoms[:1]


def _scaled_parts(layer: Layer, place: int, shape: tuple[int, ...]) -> int:
    """Return into how many parts with a scale each a matrix product divides an input of a shape."""
    if layer.type == "SDPA":
        return int(np.prod(shape[:-1])) if place == 0 else shape[0]
    first = layer.type == "Gemm" and place == 0 and not layer.integer(4)
    return int(np.prod(shape[:-1])) if first else 1


def _factors(layer: Layer, weights: Weights) -> dict[str, Floats]:
    """Return the weights that a layer multiplies by, by name, one-dimensional, whichever way they are stored."""
    if layer.type in PRODUCTS:
        return {name: values.ravel() for name, values in matrices(layer, weights).items()}
    return {"weight": weights["weight"]} if "weight" in weights else {}


def _dequantized(values: NDArray[np.int8], scales: Floats) -> Floats:
    """Return INT8 values by their scales, one for each of equal parts; where that is 0, as ncnn has it, 0."""
    parts = values.reshape(len(scales), -1).astype(np.float32)
    divided = np.zeros_like(parts)
    np.divide(parts, scales[:, np.newaxis], out=divided, where=scales[:, np.newaxis] != 0)
    return divided.ravel()


def _require_near(full: Floats, int8: Floats, layer: Layer, param: Path, int8_param: Path) -> None:
    if full.size != int8.size:
        raise InputError(f"{int8_param}: layer {layer.name} has {int8.size} weights, in {param} {full.size}. {_HINT}.")
    sqnr_db = Powers.of(full, int8).sqnr_db
    if sqnr_db is not None and sqnr_db < MIN_WEIGHT_SQNR_DB:
        raise InputError(
            f"{int8_param}: the weights of layer {layer.name} are not those of {param} ({sqnr_db:.1f} dB). {_HINT}."
        )
