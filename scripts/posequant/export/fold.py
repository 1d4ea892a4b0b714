"""Folding normalisations and activations of an ncnn network into the layers before them.

ncnn's `tools/ncnnoptimize.cpp` does the same, and pnnx while it converts. Recipes and INT8 want it: a layer then writes
what the next one reads, and its activation bounds what INT8 has to hold. Networks that onnx2ncnn and caffe2ncnn wrote
have these layers apart.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from posequant.ncnn_format.model import ACTIVATION, ACTIVATION_VALUES, Layer, NcnnModel, Weights, array_key

Doubles = NDArray[np.float64]

# Of an inner product, what lies behind may count channels in another way than it does.
_WITH_CHANNELS = ("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise")
# Parameters of these layers: how many outputs, and whether there is a bias.
_OUTPUTS, _BIAS = 0, 5
_VALUES = array_key(ACTIVATION_VALUES)


def fold(model: NcnnModel, outputs: Collection[str]) -> tuple[NcnnModel, dict[str, int]]:
    """Return a float network whose normalisations and activations are folded into the layers that make their inputs.

    Args:
        model: the network, with weights in float32.
        outputs: the blobs that it gives; none of them is changed.

    Returns:
        The network, and how many layers of each type are gone.
    """
    makers: dict[str, int] = {}
    layers: list[Layer] = []
    weights: list[Weights] = []
    gone: Counter[str] = Counter()
    for layer, values in zip(model.layers, model.weights, strict=True):
        place = makers.get(layer.bottoms[0]) if len(layer.bottoms) == 1 and layer.bottoms[0] not in outputs else None
        folded = None if place is None else _folded(layers[place], weights[place], layer, values)
        if place is not None and folded is not None:
            # The layer takes the place of the last: what it made, nothing makes any more.
            layers[place], weights[place] = replace(folded[0], tops=layer.tops), folded[1]
            gone[layer.type] += 1
        else:
            place = len(layers)
            layers.append(layer)
            weights.append(values)
        makers.update(dict.fromkeys(layer.tops, place))
    return NcnnModel(layers, weights), dict(gone)


def _folded(layer: Layer, weights: Weights, behind: Layer, values: Weights) -> tuple[Layer, Weights] | None:
    """Return a layer with the one behind it taken in; None where it cannot take that in."""
    if "weight" not in weights or layer.integer(ACTIVATION):
        return None
    if (activation := _activation(behind)) and layer.type in (*_WITH_CHANNELS, "InnerProduct"):
        return replace(layer, params={**layer.params, **activation}), weights
    affine = _affine(behind, values) if layer.type in _WITH_CHANNELS else None
    if affine is None or len(affine[0]) != layer.integer(_OUTPUTS) or weights["weight"].size % len(affine[0]):
        return None
    factor, offset = affine
    weight = weights["weight"].astype(np.float64).reshape(len(factor), -1) * factor[:, np.newaxis]
    bias = weights["bias"].astype(np.float64) * factor + offset if "bias" in weights else offset
    new: Weights = {"weight": weight.ravel().astype(np.float32), "bias": bias.astype(np.float32)}
    return replace(layer, params={**layer.params, _BIAS: "1"}), {**weights, **new}


def _affine(layer: Layer, weights: Weights) -> tuple[Doubles, Doubles] | None:
    """Return by what a layer multiplies its channels and what it adds to them, each (C,); None if it does other things.

    The formulas are those of ncnn's `src/layer/batchnorm.cpp`, `scale.cpp` and `bias.cpp`.
    """
    constants: Mapping[str, Doubles] = {name: array.astype(np.float64) for name, array in weights.items()}
    match layer.type:
        case "BatchNorm" if "slope" in constants:
            factor = constants["slope"] / np.sqrt(constants["variance"] + layer.real(1))
            return factor, constants["bias"] - constants["mean"] * factor
        case "Scale" if "scale" in constants:
            factor = constants["scale"]
            return factor, constants.get("bias", np.zeros_like(factor))
        case "Bias" if "bias" in constants:
            return np.ones_like(constants["bias"]), constants["bias"]
    return None


def _activation(layer: Layer) -> dict[int, str] | None:
    """Return the parameters by which a layer takes in an activation; None where ncnn has none for it."""
    params = layer.params
    match layer.type:
        case "ReLU" if not layer.real(0):
            return {ACTIVATION: "1"}
        case "ReLU":
            return {ACTIVATION: "2", _VALUES: f"1,{params[0]}"}
        case "Clip" if {0, 1} <= params.keys():
            return {ACTIVATION: "3", _VALUES: f"2,{params[0]},{params[1]}"}
        case "Sigmoid":
            return {ACTIVATION: "4"}
        case "Mish":
            return {ACTIVATION: "5"}
        case "HardSwish" if {0, 1} <= params.keys():
            return {ACTIVATION: "6", _VALUES: f"2,{params[0]},{params[1]}"}
    return None
