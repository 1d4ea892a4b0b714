"""The bounds worked by hand, and beside what ncnn computes at and beyond them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.ncnn_fixtures import Builder

from posequant.ncnn_format.model import Layer, NcnnModel
from posequant.ncnn_format.overflow import (
    F23,
    F43,
    bounds,
    is_winograd_safe,
    is_winograd_shaped,
    needs_mark,
    winograd_bounds,
)
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import agreement
from posequant.quantize.ncnn2int8 import quantize_files
from posequant.quantize.table import CalibrationTable

# Inputs of the 3x3 convolution below at which F(4x4, 3x3) still fits, and the first at which it does not.
LARGEST = {127: 25, 31: 105}


def convolution(channels: int, outputs: int = 16, **params: int) -> Layer:
    keys = {"kernel": 1, "dilation": 2, "stride": 3, "mark": 31}
    given = {keys[name]: str(value) for name, value in params.items()}
    common = {0: str(outputs), 1: "3", 6: str(outputs * channels * 9), 8: "2"}
    return Layer("Convolution", "conv", ("a",), ("out0",), common | given)


def quantized_extreme(folder: Path, channels: int, weight: int) -> tuple[Path, Path]:
    """The largest sums: every channel 127 after a 1x1 convolution, all weights of a 3x3 convolution `weight`."""
    builder = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("expand", "in0", "a", np.ones((channels, 3, 1, 1), np.float32))
        .convolution("conv", "a", "out0", np.ones((16, channels, 3, 3), np.float32))
    )
    table = CalibrationTable(
        {"expand": np.full(channels, 127, np.float32), "conv": np.full(16, weight, np.float32)},
        {"expand": np.float32(127), "conv": np.float32(127)},
    )
    table.write(folder / "table")
    out = folder / "int8.param", folder / "int8.bin"
    quantize_files(*builder.write(folder), folder / "table", *out)
    return out


def without_mark(param: Path) -> Path:
    """The same `.param` as the official ncnn2int8 would write it."""
    plain = param.with_name("plain.param")
    plain.write_text(param.read_text().replace(" 31=64", ""))
    return plain


def same_with_winograd(param: Path, bin_: Path, crops: NDArray[np.float32]) -> bool:
    runs = [
        NcnnNetwork(param, bin_, "int8", (3, 16, 16), int8_winograd=winograd).forward(crops)
        for winograd in (True, False)
    ]
    return bool(agreement(*runs)["equal"])


@pytest.mark.parametrize("weight", [127, 31])
def test_the_bound_is_where_ncnn_begins_to_overflow(weight: int, tmp_path: Path) -> None:
    crops = np.ones((1, 3, 16, 16), np.float32)
    for channels, fits in ((LARGEST[weight], True), (LARGEST[weight] + 1, False)):
        folder = tmp_path / str(channels)
        folder.mkdir()
        param, bin_ = quantized_extreme(folder, channels, weight)
        layer, weights = NcnnModel.read(param, bin_).named("conv")
        assert is_winograd_safe(layer) == (not fits)
        unmarked = convolution(channels)
        assert needs_mark(unmarked, weights) == (not fits)
        assert same_with_winograd(param, bin_, crops)
        # Without the mark ncnn overflows just where the bound says so.
        assert same_with_winograd(without_mark(param), bin_, crops) == fits


def test_weights_that_cannot_overflow_leave_the_file_alone(tmp_path: Path) -> None:
    param, _ = quantized_extreme(tmp_path, channels=16, weight=127)
    assert "31=" not in param.read_text()


def test_bounds_by_hand() -> None:
    weight = np.zeros((2, 1, 3, 3), np.int8)
    weight[1] = [[1, -2, 3], [0, 4, 0], [0, 0, -10]]
    found = {bound.quantity: bound for bound in bounds(convolution(1, outputs=2), weight.ravel())}
    assert {bound.channel for bound in found.values() if "input" not in bound.quantity} == {1}
    assert found["int32 accumulator"].worst == 127 * 20
    assert found["int16 pair of products"].worst == 2 * 127 * 10
    assert found["F(4x4, 3x3) int32 result"].worst == 576 * 127 * 20
    assert found["F(2x2, 3x3) int32 result"].worst == 4 * 127 * 20
    assert found["F(4x4, 3x3) int16 input"].worst == 100 * 127
    assert found["F(2x2, 3x3) int16 input"].worst == 4 * 127
    # The largest of 36 values is that of rows and columns (0, 0, 6): 6 * 6 * -10; of 16, 2 * 2 * -10.
    assert found["F(4x4, 3x3) int16 kernel"].worst == 360
    assert found["F(2x2, 3x3) int16 kernel"].worst == 40


@pytest.mark.parametrize("form", [F43, F23])
@pytest.mark.parametrize("weight", [-127, 127])
def test_int16_transforms_never_overflow(form: object, weight: int) -> None:
    full = np.full(9 * 8, weight, np.int8)
    assert not any(bound.exceeds for bound in winograd_bounds(convolution(8, 1), full) if "int16" in bound.quantity)


def test_transforms_give_the_factor_times_the_convolution() -> None:
    """What the last division undoes, with the output transforms of the literature (ncnn: the otm of its comments)."""
    rng = np.random.default_rng(0)
    outputs: list[tuple[object, NDArray[np.int64]]] = [
        (F23, np.array([[1, 1, 1, 0], [0, 1, -1, 1]])),
        (F43, np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 4]])),
    ]
    for form, back in outputs:
        assert form in (F23, F43)
        winograd = F23 if form is F23 else F43
        tile, size = len(winograd.data), len(back)
        data = rng.integers(-127, 128, (tile, tile))
        kernel = rng.integers(-127, 128, (3, 3))
        products = (winograd.kernel @ kernel @ winograd.kernel.T) * (winograd.data @ data @ winograd.data.T)
        direct = [[(data[i : i + 3, j : j + 3] * kernel).sum() for j in range(size)] for i in range(size)]
        np.testing.assert_array_equal(back @ products @ back.T, winograd.factor * np.array(direct))


@pytest.mark.parametrize(
    ("params", "shaped"), [({}, True), ({"stride": 2}, False), ({"dilation": 2}, False), ({"kernel": 1}, False)]
)
def test_winograd_shape(params: dict[str, int], shaped: bool) -> None:
    assert is_winograd_shaped(convolution(8, **params)) == shaped


def test_marked_layers_have_no_winograd_bounds() -> None:
    weight = np.full(16 * 64 * 9, 127, np.int8)
    marked = convolution(64, mark=64)
    assert is_winograd_safe(marked)
    assert not needs_mark(marked, {"weight": weight})
    assert not any(bound.exceeds for bound in bounds(marked, weight))
    assert any(bound.exceeds for bound in bounds(convolution(64), weight))
