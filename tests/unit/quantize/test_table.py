"""The calibration table: its text, and what makes it unusable."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ncnn_fixtures import Builder, small_network

from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer
from posequant.quantize.table import CalibrationTable
from posequant.quantize.weights import quantizable, weight_limit, weight_scale_count, weight_scales

SCALES = st.floats(2.0**-10, 2.0**20, width=32)


def small_table() -> CalibrationTable:
    layers = quantizable(small_network().layers)
    return CalibrationTable(
        {layer.name: np.full(weight_scale_count(layer), 50, np.float32) for layer in layers},
        {layer.name: np.float32(20) for layer in layers},
    )


def test_the_text_is_that_of_ncnn2table(tmp_path: Path) -> None:
    table = CalibrationTable(
        {"conv": np.array([137.131805, 0.1], np.float32), "fc": np.array([1e6 / 3], np.float32)},
        {"conv": np.float32(48.21199), "fc": np.float32(2)},
    )
    table.write(tmp_path / "table")
    assert (tmp_path / "table").read_text() == (
        "conv_param_0 137.131805 0.100000 \nfc_param_0 333333.343750 \nconv 48.211990 \nfc 2.000000 \n"
    )


@given(weights=st.lists(SCALES, min_size=1), activation=SCALES)
def test_a_table_is_written_as_it_was_read(
    weights: list[float], activation: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, second = tmp_path_factory.getbasetemp() / "first", tmp_path_factory.getbasetemp() / "second"
    CalibrationTable({"it": np.array(weights, np.float32)}, {"it": np.float32(activation)}).write(first)
    read = CalibrationTable.read(first)
    np.testing.assert_allclose(read.weight_scales["it"], np.array(weights, np.float32), rtol=1e-6, atol=5.1e-7)
    read.write(second)
    assert second.read_bytes() == first.read_bytes()


def without(start: str) -> Callable[[str], str]:
    return lambda text: "".join(line for line in text.splitlines(True) if not line.startswith(start))


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "is empty"),
        (lambda text: "\n" + text, "line 1: there is no scale"),
        (replaced("conv_a 20.000000", "conv_a"), "line 9: there is no scale"),
        (replaced("conv_a 20.000000", "conv_a 20.0 20.0"), "line 9: conv_a has 2 activation scales"),
        (replaced("conv_a 20.000000", "conv_a twenty"), "line 9: could not convert string to float: 'twenty'"),
        (lambda text: text + "conv_a 20.0 \n", "line 17: conv_a occurs twice"),
        (replaced("conv_a 20.000000", "conv_a nan"), "the activation scale nan of layer conv_a is not a positive"),
        (replaced("conv_a 20.000000", "conv_a inf"), "the activation scale inf of layer conv_a is not a positive"),
        (replaced("conv_a 20.000000", "conv_a 0.000000"), "the activation scale 0.0 of layer conv_a is not a positive"),
        (replaced("conv_b_param_0 50.000000", "conv_b_param_0 -5.0"), "the weight scale -5.0 of layer conv_b is not"),
        (replaced("conv_b_param_0 50.000000", "conv_b_param_0 inf"), "the weight scale inf of layer conv_b is not"),
        (replaced("conv_b_param_0 50.000000 ", "conv_b_param_0 "), "layer conv_b has 7 weight scales, but 8 channels"),
        (without("conv_g "), "layer conv_g has no activation scale"),
        (without("conv_g_param_0 "), "layer conv_g has no weight scale"),
        (lambda text: without("conv_g ")(without("conv_g_param_0 ")(text)), "layer conv_g has no weight scale"),
        (lambda text: text[: len(text) // 2], "layer convdw_c has|layer conv_a has"),
        (
            replaced("conv_a 20.000000", "conv_a 1e30"),
            "by the activation scale 1e\\+30 of layer conv_a INT8 would hold",
        ),
        (
            replaced("conv_a 20.000000", "conv_a 0.000001"),
            "activation scale 1e-06 of layer conv_a INT8 would hold values",
        ),
        (lambda text: text + "other 20.0 \n", "other is no layer of the model"),
        (lambda text: text + "add_e 20.0 \n", "add_e is no layer of the model that can be quantized"),
        (lambda text: text + "other_param_0 20.0 \n", "other is no layer of the model"),
    ],
)
def test_a_damaged_table_is_refused(damage: Callable[[str], str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "table"
    small_table().write(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        CalibrationTable.read(path).check(small_network().layers, [], path)
    assert str(path) in str(caught.value)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        CalibrationTable.read(tmp_path / "table")


def test_a_layer_kept_in_float_needs_no_lines() -> None:
    layers = small_network().layers
    table = small_table()
    table.check(layers, [], Path("table"))
    table.check(layers, ["conv_a", "fc"], Path("table"))
    table.without(["conv_a", "fc"]).check(layers, ["conv_a", "fc"], Path("table"))
    with pytest.raises(InputError, match="no layer conv_z of the model"):
        table.check(layers, ["conv_z"], Path("table"))
    with pytest.raises(InputError, match="no layer is left to quantize"):
        table.check(layers, [layer.name for layer in quantizable(layers)], Path("table"))


def test_convolutions_with_weights_from_elsewhere_are_not_quantizable() -> None:
    dynamic = Builder().add("Convolution", "dynamic", "in0 w", "out0", {0: 8, 19: 1}).layers
    assert quantizable(small_network().layers + dynamic) == quantizable(small_network().layers)


@pytest.mark.parametrize(
    ("type_", "params", "limit"),
    [
        ("Convolution", {0: 1, 1: 3}, 31),
        ("Convolution", {0: 1, 1: 3, 11: 3, 2: 1, 12: 1, 3: 1, 13: 1}, 31),
        ("Convolution", {0: 1, 1: 3, 11: 1}, 127),
        ("Convolution", {0: 1, 1: 1}, 127),
        ("Convolution", {0: 1, 1: 3, 3: 2}, 127),
        ("Convolution", {0: 1, 1: 3, 13: 2}, 127),
        ("Convolution", {0: 1, 1: 3, 2: 2}, 127),
        ("ConvolutionDepthWise", {0: 1, 1: 3, 7: 1}, 127),
        ("InnerProduct", {0: 1}, 127),
    ],
)
def test_winograd_convolutions_get_six_bits(type_: str, params: dict[int, int], limit: int) -> None:
    layer = Layer(type_, "it", ("in0",), ("out0",), {key: str(value) for key, value in params.items()})
    assert weight_limit(layer) == limit
    weight = np.array([0.5, -2.0, 1.0] * 3, np.float32)
    np.testing.assert_array_equal(weight_scales(layer, weight, "kl"), np.float32(limit) / np.float32(2))


def test_weight_scales_worked_by_hand() -> None:
    weight = np.array([0.1, -0.3, 0.0, 0.0, 5.0, 4.0], np.float32)
    convolution = Layer("Convolution", "it", ("in0",), ("out0",), {0: "3", 1: "1"})
    three = [np.float32(127) / np.float32(0.3), 1, np.float32(127) / np.float32(5)]
    np.testing.assert_array_equal(weight_scales(convolution, weight, "kl"), np.array(three, np.float32))
    inner_product = Layer("InnerProduct", "it", ("in0",), ("out0",), {0: "3"})
    np.testing.assert_array_equal(weight_scales(inner_product, weight, "kl"), np.array(three, np.float32))
    # Depthwise: one scale per group, here of three outputs each.
    grouped = Layer("ConvolutionDepthWise", "it", ("in0",), ("out0",), {0: "6", 1: "1", 7: "2"})
    two = [np.float32(127) / np.float32(0.3), np.float32(127) / np.float32(5)]
    np.testing.assert_array_equal(weight_scales(grouped, weight, "kl"), np.array(two, np.float32))


def test_weight_scales_of_aciq_worked_by_hand() -> None:
    layer = Layer("Convolution", "it", ("in0",), ("out0",), {0: "1", 1: "1"})
    weight = np.array([1.0, -2.0, 0.5, 0.25], np.float32)
    deviation = 2 * 2 * 0.175 * (1 + np.sqrt(np.pi * np.log(4))) / np.sqrt(2 * np.log(4))
    np.testing.assert_allclose(weight_scales(layer, weight, "aciq"), 127 / (3.92403714 * deviation), rtol=1e-6)
    winograd = Layer("Convolution", "it", ("in0",), ("out0",), {0: "1", 1: "3"})
    np.testing.assert_allclose(weight_scales(winograd, weight, "aciq"), 31 / (3.28691474 * deviation), rtol=1e-6)
    np.testing.assert_array_equal(weight_scales(layer, np.zeros(4, np.float32), "aciq"), [1])
