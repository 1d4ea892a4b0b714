"""The PyTorch form of ncnn networks, beside ncnn itself: layer by layer and whole, in float and in INT8."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.unit.ncnn_fixtures import draw_crops, small_network

from posequant.ncnn_format.model import Layer, NcnnModel, Weights
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.networks.ncnn_torch.network import TorchNetwork, unsupported
from posequant.quantize.ncnn2int8 import quantize, quantize_layer
from posequant.quantize.table import CalibrationTable
from posequant.quantize.weights import quantizable, weight_scales

Floats = NDArray[np.float32]
MAP = (8, 9, 6)


def decibels(reference: Floats, found: Floats) -> float:
    noise = float(np.square(found.astype(np.float64) - reference).sum())
    return -10 * math.log10(noise / float(np.square(reference.astype(np.float64)).sum())) if noise else math.inf


def draw(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def layer_of(type_: str, params: dict[int, Any], bottoms: int = 1, tops: int = 1) -> Layer:
    texts = {key: str(value) for key, value in params.items()}
    return Layer(type_, "x", tuple(f"a{n}" for n in range(bottoms)), tuple(f"b{n}" for n in range(tops)), texts)


def in_torch(layer: Layer, weights: Weights, bottoms: Sequence[Floats]) -> list[Floats]:
    network = TorchNetwork(NcnnModel([layer], [weights]))
    # Two crops, of which the other must not matter.
    blobs = {
        name: torch.from_numpy(np.stack([values, values[::-1]]))
        for name, values in zip(layer.bottoms, bottoms, strict=True)
    }
    blobs = blobs or {"none": torch.zeros(2)}
    with torch.no_grad():
        found = network.run(blobs, layer.tops)
    return [found[name][0].numpy() for name in layer.tops]


def convolution(
    out: int = 6,
    into: int = 8,
    kernel: tuple[int, int] = (3, 3),
    params: dict[int, Any] | None = None,
    *,
    group: int = 1,
    bias: bool = True,
    type_: str = "Convolution",
) -> tuple[Layer, Weights]:
    weight = draw(out, into // group, *kernel, seed=1) * np.float32((into // group * np.prod(kernel)) ** -0.5)
    given = {0: out, 1: kernel[1], 11: kernel[0], 5: int(bias), 6: weight.size} | ({7: group} if group > 1 else {})
    weights = {"weight": weight.ravel()} | ({"bias": draw(out, seed=2)} if bias else {})
    type_ += "DepthWise" if group > 1 else ""
    return layer_of(type_, given | (params or {})), weights


def product(out: int = 5, into: int = 7, params: dict[int, Any] | None = None) -> tuple[Layer, Weights]:
    layer = layer_of("InnerProduct", {0: out, 1: 1, 2: out * into} | (params or {}))
    return layer, {"weight": draw(out * into, seed=1), "bias": draw(out, seed=2)}


# Geometry and activations of convolutions, that of INT8 layers alike.
CONVOLUTIONS: dict[str, tuple[Layer, Weights]] = {
    "3x3": convolution(params={4: 1}),
    "1x1": convolution(kernel=(1, 1)),
    "no bias": convolution(bias=False),
    "stride, dilation, sides": convolution(
        kernel=(3, 2), params={3: 2, 13: 1, 2: 2, 12: 1, 4: 1, 15: 2, 14: 0, 16: 3, 9: 1}
    ),
    "SAME upper": convolution(params={3: 2, 4: -233}),
    "SAME lower": convolution(params={3: 2, 4: -234}),
    "relu": convolution(params={4: 1, 9: 1}),
    "leaky": convolution(params={4: 1, 9: 2, -23310: "1,0.1"}),
    "clip": convolution(params={4: 1, 9: 3, -23310: "2,-0.5,0.7"}),
    "sigmoid": convolution(params={4: 1, 9: 4}),
    "mish": convolution(params={4: 1, 9: 5}),
    "hard swish": convolution(params={4: 1, 9: 6, -23310: "2,0.1666667,0.5"}),
    "depthwise": convolution(8, 8, params={4: 1}, group=8),
    "depthwise relu": convolution(8, 8, params={4: 1, 9: 1}, group=8),
    "depthwise stride": convolution(8, 8, params={4: 1, 3: 2, 9: 1}, group=8),
    "depthwise 5x5": convolution(8, 8, kernel=(5, 5), params={4: 2}, group=8),
    "depthwise clip": convolution(8, 8, params={4: 1, 9: 3, -23310: "2,0,1"}, group=8),
    "depthwise, no bias": convolution(8, 8, params={4: 1}, group=8, bias=False),
}
PADDED = {
    "pad value": convolution(params={4: 1, 18: 0.75}),
    "depthwise pad value": convolution(8, 8, params={4: 1, 18: 0.75}, group=8),
}
FLOAT: dict[str, tuple[Layer, Weights]] = {
    **CONVOLUTIONS,
    **PADDED,
    "grouped": convolution(6, 8, params={4: 1}, group=2),
    "deconvolution": convolution(kernel=(4, 4), params={3: 2, 4: 1}, type_="Deconvolution"),
    "deconvolution, sides": convolution(
        kernel=(3, 3), params={3: 2, 4: 1, 15: 0, 14: 2, 16: 1, 18: 1, 9: 1}, type_="Deconvolution"
    ),
    "deconvolution to a size": convolution(
        kernel=(3, 3), params={3: 2, 4: -233, 20: 12, 21: 18}, type_="Deconvolution"
    ),
    "depthwise deconvolution": convolution(8, 8, (4, 4), {3: 2, 4: 1}, group=8, type_="Deconvolution"),
    "grouped deconvolution": convolution(6, 8, (4, 4), {3: 2, 4: 1}, group=2, type_="Deconvolution"),
}


@pytest.mark.parametrize("name", FLOAT)
def test_float_convolution_is_that_of_ncnn(name: str) -> None:
    layer, weights = FLOAT[name]
    values = draw(*MAP)
    (expected,) = LayerNetwork(layer, weights).run([values])
    (found,) = in_torch(layer, weights, [values])
    assert found.shape == expected.shape
    assert decibels(expected, found) > 115


OTHERS: dict[str, tuple[Layer, Weights, Sequence[Floats]]] = {
    "inner product of a map": (*product(into=432), [draw(*MAP)]),
    "inner product of rows": (*product(), [draw(4, 7)]),
    "inner product of a row": (*product(params={9: 1}), [draw(7)]),
    "1x1 of a row": (*convolution(kernel=(1, 1)), [draw(8)]),
    "ReLU": (layer_of("ReLU", {}), {}, [draw(*MAP)]),
    "leaky ReLU": (layer_of("ReLU", {0: 0.1}), {}, [draw(*MAP)]),
    "PReLU": (layer_of("PReLU", {0: 8}), {"slope": draw(8, seed=3)}, [draw(*MAP)]),
    "PReLU of one slope": (layer_of("PReLU", {0: 1}), {"slope": draw(1, seed=3)}, [draw(*MAP)]),
    "Clip": (layer_of("Clip", {0: -0.5, 1: 0.5}), {}, [draw(*MAP)]),
    "HardSwish": (layer_of("HardSwish", {0: 0.1666667, 1: 0.5}), {}, [3 * draw(*MAP)]),
    "HardSigmoid": (layer_of("HardSigmoid", {}), {}, [3 * draw(*MAP)]),
    "Concat of rows": (layer_of("Concat", {0: 0}, 2), {}, [draw(7), draw(5)]),
    "Concat of channels": (layer_of("Concat", {}, 2), {}, [draw(*MAP), draw(4, 9, 6)]),
    "Concat of columns": (layer_of("Concat", {0: -1}, 2), {}, [draw(*MAP), draw(8, 9, 5)]),
    "Slice in parts": (layer_of("Slice", {-23300: "3,2,-233,-233"}, 1, 3), {}, [draw(*MAP)]),
    "Slice at places": (layer_of("Slice", {-23302: "2,2,-2", 1: 1}, 1, 3), {}, [draw(*MAP)]),
    "nearest by a factor": (layer_of("Interp", {0: 1, 1: 2.0, 2: 3.0}), {}, [draw(*MAP)]),
    "nearest to a size": (layer_of("Interp", {0: 1, 3: 13, 4: 17}), {}, [draw(*MAP)]),
    "bilinear": (layer_of("Interp", {0: 2, 3: 13, 4: 17}), {}, [draw(*MAP)]),
    "bilinear, corners": (layer_of("Interp", {0: 2, 1: 2.0, 2: 2.0, 6: 1}), {}, [draw(*MAP)]),
    "Interp of a row": (layer_of("Interp", {0: 2, 3: 3, 4: 4}), {}, [draw(7)]),
    "max": (layer_of("Pooling", {0: 0, 1: 3, 2: 2, 3: 1}), {}, [draw(*MAP)]),
    "max, valid": (layer_of("Pooling", {0: 0, 1: 2, 2: 2, 5: 1}), {}, [draw(*MAP)]),
    "max, SAME": (layer_of("Pooling", {0: 0, 1: 3, 2: 2, 5: 2}), {}, [draw(*MAP)]),
    "mean": (layer_of("Pooling", {0: 1, 1: 3, 2: 2, 3: 1}), {}, [draw(*MAP)]),
    "mean with pads": (layer_of("Pooling", {0: 1, 1: 3, 2: 2, 3: 1, 6: 1, 5: 1}), {}, [draw(*MAP)]),
    "global mean": (layer_of("Pooling", {0: 1, 4: 1}), {}, [draw(*MAP)]),
    "global max": (layer_of("Pooling", {0: 0, 4: 1}), {}, [draw(*MAP)]),
    "mean to a size": (layer_of("Pooling", {0: 1, 7: 1, 8: 4, 18: 3}), {}, [draw(*MAP)]),
    "PixelShuffle": (layer_of("PixelShuffle", {0: 2}), {}, [draw(*MAP)]),
    "PixelShuffle, blocks first": (layer_of("PixelShuffle", {0: 2, 1: 1}), {}, [draw(*MAP)]),
    "ShuffleChannel": (layer_of("ShuffleChannel", {0: 2}), {}, [draw(*MAP)]),
    "ShuffleChannel, back": (layer_of("ShuffleChannel", {0: 2, 1: 1}), {}, [draw(*MAP)]),
    "Reshape": (layer_of("Reshape", {0: 54, 1: 4, 2: 2}), {}, [draw(*MAP)]),
    "Reshape, kept and found": (layer_of("Reshape", {0: -1, 1: 0, 2: 4}), {}, [draw(*MAP)]),
    "Reshape to rows": (layer_of("Reshape", {0: -1, 1: 8}), {}, [draw(*MAP)]),
    "Reshape to four": (layer_of("Reshape", {0: 6, 1: 9, 11: 4, 2: 2}), {}, [draw(*MAP)]),
    "Flatten": (layer_of("Flatten", {}), {}, [draw(*MAP)]),
    "Padding": (layer_of("Padding", {0: 1, 1: 2, 2: 3, 3: 0, 5: 0.5}), {}, [draw(*MAP)]),
    "Padding, reflected": (layer_of("Padding", {0: 1, 1: 2, 2: 3, 3: 0, 4: 2}), {}, [draw(*MAP)]),
    "Eltwise": (layer_of("Eltwise", {0: 1, -23301: "2,0.5,-2.0"}, 2), {}, [draw(*MAP), draw(*MAP, seed=5)]),
    "Eltwise product": (layer_of("Eltwise", {0: 0}, 2), {}, [draw(*MAP), draw(*MAP, seed=5)]),
    "BatchNorm": (
        layer_of("BatchNorm", {0: 8, 1: 1e-3}),
        {"slope": draw(8), "mean": draw(8, seed=1), "variance": np.square(draw(8, seed=2)), "bias": draw(8, seed=3)},
        [draw(*MAP)],
    ),
    "Scale": (layer_of("Scale", {0: 8, 1: 1}), {"scale": draw(8), "bias": draw(8, seed=2)}, [draw(*MAP)]),
    "Scale by a row": (layer_of("Scale", {0: -233}, 2), {}, [draw(*MAP), draw(8, seed=2)]),
    "Dropout": (layer_of("Dropout", {0: 0.5}), {}, [draw(*MAP)]),
    "Softmax of columns": (layer_of("Softmax", {0: -1, 1: 1}), {}, [draw(*MAP)]),
    "Softmax of channels": (layer_of("Softmax", {0: 0, 1: 1}), {}, [draw(*MAP)]),
    "mean of columns": (layer_of("Reduction", {0: 3, 1: 0, -23303: "1,-1", 4: 1, 5: 1}), {}, [draw(*MAP)]),
    "norm of maps": (layer_of("Reduction", {0: 8, 1: 0, -23303: "2,1,2", 5: 1}), {}, [draw(*MAP)]),
    "sum of all": (layer_of("Reduction", {0: 0, 1: 1, 2: 0.5}), {}, [draw(*MAP)]),
    "MemoryData": (layer_of("MemoryData", {0: 6, 1: 9, 2: 8}, 0), {"data": draw(432)}, []),
    "scalar": (layer_of("BinaryOp", {0: 7, 1: 1, 2: 0.3}), {}, [draw(*MAP)]),
    "row by channels": (layer_of("BinaryOp", {0: 2}, 2), {}, [draw(*MAP), draw(8, seed=2)]),
    "row by columns": (layer_of("BinaryOp", {0: 0}, 2), {}, [draw(6, seed=2), draw(*MAP)]),
    "rows by channels": (layer_of("BinaryOp", {0: 0}, 2), {}, [draw(*MAP), draw(8, 9, seed=2)]),
    "map of one place": (layer_of("BinaryOp", {0: 1}, 2), {}, [draw(*MAP), draw(8, 1, 1, seed=2)]),
} | {
    f"{type_}": (layer_of(type_, {}), {}, [draw(*MAP)])
    for type_ in ("Swish", "Sigmoid", "Mish", "GELU", "TanH", "ELU", "Noop")
} | {
    f"BinaryOp {kind}": (layer_of("BinaryOp", {0: kind}, 2), {}, [np.abs(draw(*MAP)), np.abs(draw(*MAP, seed=3)) + 1])
    for kind in range(12)
} | {
    f"UnaryOp {kind}": (layer_of("UnaryOp", {0: kind}), {}, [np.clip(np.abs(draw(*MAP)), 0.1, 0.9)])
    for kind in range(20)
} | {
    f"Permute {kind}": (layer_of("Permute", {0: kind}), {}, [draw(*MAP)]) for kind in range(6)
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_layer_is_that_of_ncnn(name: str) -> None:
    layer, weights, bottoms = OTHERS[name]
    expected = LayerNetwork(layer, weights).run(bottoms)
    for one, other in zip(expected, in_torch(layer, weights, bottoms), strict=True):
        assert other.shape == one.shape
        assert decibels(one, other) > 110


def in_int8(layer: Layer, weights: Weights) -> tuple[Layer, Weights]:
    scales = weight_scales(layer, weights["weight"], "kl")
    return quantize_layer(layer, weights, scales, np.float32(43.21))


@pytest.mark.parametrize("name", [*CONVOLUTIONS, "inner product of a map", "inner product of rows"])
def test_int8_layer_has_the_bits_of_ncnn(name: str) -> None:
    layer, weights, bottoms = (*CONVOLUTIONS[name], [draw(*MAP)]) if name in CONVOLUTIONS else OTHERS[name]
    int8 = in_int8(layer, weights)
    (expected,) = LayerNetwork(*int8, packing=False).run(bottoms)
    (found,) = in_torch(*int8, bottoms)
    if layer.integer(9) in (4, 5, 6):
        # ncnn has approximations of its own for these.
        assert decibels(expected, found) > 115
    else:
        np.testing.assert_array_equal(found, expected)


def int8_model(model: NcnnModel, activation_scales: dict[str, float] | None = None) -> NcnnModel:
    """Return a network in INT8 with plausible scales."""
    names = [layer.name for layer in quantizable(model.layers)]
    weights = {
        name: weight_scales(layer, values["weight"], "kl") for name in names for layer, values in [model.named(name)]
    }
    activations = {name: np.float32((activation_scales or {}).get(name, 21.3)) for name in names}
    return quantize(model, CalibrationTable(weights, activations))


def run_both(model: NcnnModel, crops: Floats, precision: str) -> list[tuple[Floats, Floats]]:
    """Return each output of a network as ncnn has it, unpacked, and as PyTorch has it."""
    expected = NcnnNetwork.of(model, precision, crops.shape[1:], packing=False).forward(crops)
    with torch.no_grad():
        found = TorchNetwork(model)(torch.from_numpy(crops))
    return [(one, other.numpy().reshape(one.shape)) for one, other in zip(expected, found, strict=True)]


def test_float_network_is_that_of_ncnn() -> None:
    for expected, found in run_both(small_network().model(), draw_crops(3), "fp32"):
        assert decibels(expected, found) > 115


def test_int8_network_has_the_bits_of_ncnn() -> None:
    """Requantized outputs, a shared one behind a Split among them, are what the readers would round themselves."""
    model = int8_model(small_network().model())
    assert {layer.int8_term for layer in model.layers} == {0, 1, 2, 102}
    for expected, found in run_both(model, draw_crops(16), "int8"):
        np.testing.assert_array_equal(found, expected)


def plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The INT8 convolution of `test_gradients_by_autograd` by rounding whose gradient is that of its argument."""

    def rounded(values: torch.Tensor, limit: float) -> torch.Tensor:
        inside = values.clamp(-limit, limit)
        return inside + (torch.round(inside) - inside).detach()

    represented = rounded(x * scale, 127) / scale
    return torch.relu(torch.nn.functional.conv2d(represented, rounded(weight, 127) / 50, bias, padding=1))


def test_gradients_by_autograd() -> None:
    """Those of the input, weights, bias and scale are what plain operations and straight-through rounding give."""
    layer, weights = convolution(params={4: 1, 9: 1})
    int8 = quantize_layer(layer, weights, np.full(6, 50, np.float32), np.float32(80))
    network = TorchNetwork(NcnnModel([int8[0]], [int8[1]]))
    # Some of it is clipped.
    x = torch.from_numpy(draw(2, *MAP)).requires_grad_()
    scale = torch.tensor(80.0, requires_grad=True)
    weight = network.weights["x"].clone().requires_grad_()
    bias = network.biases["x"].clone().requires_grad_()
    (key,) = network.ranges
    trained = [network.weights["x"], network.biases["x"], network.ranges[key], network.gains["x"]]
    for tensor in trained:
        tensor.requires_grad_()
    wanted = plain(x, weight, bias, scale)
    found = network.run({"a0": x}, ["b0"])["b0"]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    direction = torch.from_numpy(draw(*wanted.shape, seed=4))
    expected = torch.autograd.grad((wanted * direction).sum(), (x, weight, bias, scale))
    of_x, *gradients, of_gain = torch.autograd.grad((found * direction).sum(), (x, *trained))
    torch.testing.assert_close(of_x, expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients[0], expected[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients[1], expected[2], rtol=1e-4, atol=1e-4)
    # It is trained as a logarithm.
    torch.testing.assert_close(gradients[2], expected[3] * 80, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(of_gain, -(expected[1] * weight).detach().flatten(1).sum(1), rtol=1e-3, atol=1e-2)


def test_one_tensor_is_rounded_once_for_all_that_share_its_scale() -> None:
    network = TorchNetwork(int8_model(small_network().model()))
    for readers in (("convdw_c", "conv_d"), ("conv_f", "fc")):
        assert len({network.scale_key(name) for name in readers}) == 1
    assert len(network.ranges) == len(network.int8_layers) - 2


def test_training_starts_at_weights_that_round_to_the_same() -> None:
    model = small_network().model()
    int8 = int8_model(model)
    network = TorchNetwork(int8, model)
    for name in network.int8_layers:
        stored = int8.named(name)[1]["weight"].reshape(network.weights[name].shape)
        np.testing.assert_array_equal(network.integers(name).numpy(), stored)
        assert not np.array_equal(network.weights[name].numpy(), stored)


def test_pad_value_is_in_int8_units() -> None:
    """A layer whose input is padded with another value than 0 has it rounded like its input."""
    layer, weights = PADDED["pad value"]
    int8, stored = in_int8(layer, weights)
    int8 = replace(int8, params={**int8.params, 18: str(round(0.75 * 43.21))})
    (expected,) = LayerNetwork(int8, stored, packing=False).run([draw(*MAP)])
    (found,) = in_torch(int8, stored, [draw(*MAP)])
    np.testing.assert_array_equal(found, expected)


def test_sums_that_float32_may_round_are_named() -> None:
    layer, weights = convolution(1, 1200, (1, 1))
    ones = {**weights, "weight": np.ones(1200, np.float32)}
    int8 = quantize_layer(layer, ones, np.full(1, 127, np.float32), np.float32(1))
    network = TorchNetwork(NcnnModel([int8[0]], [int8[1]]))
    assert network.inexact == ["x"]
    assert TorchNetwork(int8_model(small_network().model())).inexact == []


def test_layers_that_cannot_be_computed_are_named() -> None:
    layers = [layer_of("Spectrogram", {}), layer_of("Interp", {0: 3, 1: 2.0, 2: 2.0}), layer_of("ReLU", {})]
    found = unsupported(NcnnModel(layers, [{}, {}, {}]))
    assert found == ["layer x is of type Spectrogram.", "layer x: resizing of kind 3 to 1 inputs."]
