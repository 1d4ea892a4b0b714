"""The time of each layer: what is timed computes what the network does, and the parts add up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import Builder, Floats
from tests.unit.pose_fixtures import SPEC

from posequant.attribute.times import CONVERSIONS, TO_FLOAT, TO_INT8, TO_NEXT, measure_times, with_conversions
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_steps import SteppedNetwork
from posequant.quantize.ncnn2int8 import quantize
from posequant.quantize.table import CalibrationTable
from posequant.quantize.weights import absmax_scales

SHAPE = SPEC.input_shape
CROPS = np.random.default_rng(1).standard_normal((2, *SHAPE)).astype(np.float32)


def float_network() -> NcnnModel:
    """Two convolutions in a row, a sum of two that read one tensor, a depthwise one, and copies of pixels."""
    draw = np.random.default_rng(0)

    def weight(*shape: int) -> Floats:
        values: Floats = draw.normal(size=shape, scale=np.prod(shape[1:]) ** -0.5).astype(np.float32)
        return values

    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("first", "in0", "a", weight(32, 3, 5, 5), weight(32), stride=2, relu=True)
        .convolution("second", "a", "b", weight(32, 32, 3, 3), weight(32))
        .add("ReLU", "relu", "b", "c")
        .add("Split", "split", "c", "d e f")
        .convolution("left", "d", "g", weight(32, 32, 1, 1), weight(32))
        .convolution("right", "e", "h", weight(32, 32, 3, 3), weight(32))
        .add("BinaryOp", "sum", "g h", "i")
        .convolution("in_float", "f", "j", weight(32, 32, 1, 1), weight(32))
        .add("BinaryOp", "other_sum", "i j", "k")
        .convolution("depthwise", "k", "l", weight(32, 1, 3, 3), weight(32), group=32)
        .add("Interp", "twice", "l", "m", {0: 1, 1: 2.0, 2: 2.0})
        .convolution("head", "m", "out0", weight(17, 32, 1, 1), weight(17))
        .model()
    )


def int8_network(model: NcnnModel) -> NcnnModel:
    names = ["first", "second", "left", "right", "depthwise", "head"]
    weights = {name: model.named(name)[1]["weight"] for name in names}
    scales = {
        name: absmax_scales(values.reshape(32 if name != "head" else 17, -1), 63) for name, values in weights.items()
    }
    return quantize(model, CalibrationTable(scales, dict.fromkeys(names, np.float32(20))))


@pytest.fixture(scope="module")
def times(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("times")
    full, int8 = ((folder / f"{name}.param", folder / f"{name}.bin") for name in ("full", "int8"))
    float_network().write(*full)
    int8_network(float_network()).write(*int8)
    SPEC.save(folder / "model.json")
    return measure_times(
        full=full, int8=int8, model=folder / "model.json", variant="ncnn-int8", crops=CROPS, rounds=8, seconds=5
    )


def test_conversions_as_layers_give_the_same_bits() -> None:
    int8 = int8_network(float_network())
    apart = with_conversions(int8)
    # The second reads INT8 from the first, and one layer is float.
    assert [layer.name for layer in apart.layers if layer.type == "Quantize"] == [
        f"{name}_in_int8" for name in ("first", "left", "right", "depthwise", "head")
    ]
    expected, found = (NcnnNetwork.of(model, "int8", SHAPE).forward(CROPS)[0] for model in (int8, apart))
    np.testing.assert_array_equal(found, expected)


def test_each_layer_is_a_step_behind_what_it_reads() -> None:
    model = float_network()
    names = SteppedNetwork(model, "fp32").names
    assert sorted(names) == sorted(layer.name for layer in model.layers if layer.type != "Input")
    makers = {top: layer.name for layer in model.layers for top in layer.tops}
    for layer in model.layers[1:]:
        for blob in layer.bottoms:
            assert makers[blob] == "in0" or names.index(makers[blob]) < names.index(layer.name)


def test_parts_add_up_to_the_layers_and_these_to_the_network(times: dict[str, Any]) -> None:
    layers, parts = times["layers"], times["parts"]
    assert [layer["layer"] for layer in layers] == [layer.name for layer in float_network().layers[1:]]
    for kind in ("float", "int8"):
        total = sum(layer[f"{kind}_ms"] for layer in layers)
        assert total == pytest.approx(times[kind]["layers_ms"])
        assert sum(part[f"{kind}_ms"] for part in parts) == pytest.approx(total)
        # Within a few per cent in a network of milliseconds; this one takes a tenth of one.
        assert 0.5 < total / times[kind]["whole_ms"] < 2


def test_conversions_are_parts_of_their_own(times: dict[str, Any]) -> None:
    counts = {part["part"]: part["layers"] for part in times["parts"] if part["part"] in CONVERSIONS}
    # A depthwise layer computes its output at one go.
    assert counts == {TO_INT8: 5, TO_NEXT: 1, TO_FLOAT: 4}
    assert {part["part"] for part in times["parts"] if part["macs"]} == {
        *("INT8 3x3 stride 1", "INT8 5x5 stride 2", "INT8 1x1", "INT8 depthwise 3x3", "float 1x1")
    }


def test_what_a_rewriting_would_save_is_named(times: dict[str, Any]) -> None:
    assert times["rewriting"]["one_conversion"]["layers"] == ["right"]
    assert times["rewriting"]["upsampling_behind"]["layers"] == ["head"]
    assert times["rewriting"]["fold_stem"]["layers"] == ["first"]
    (head,) = (layer["int8_ms"] for layer in times["layers"] if layer["layer"] == "head")
    assert times["rewriting"]["upsampling_behind"]["ms"] == pytest.approx(0.75 * head)
