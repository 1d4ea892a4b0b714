"""Calibration: the activation scales of a small network, and crops that cannot be used."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.ncnn_fixtures import Builder, draw_crops, small_network, small_network_in_numpy, write_crops

from posequant.base.errors import InputError
from posequant.data.crop_files import crop_paths
from posequant.quantize.ncnn2table import calibrate, write_table
from posequant.quantize.table import CalibrationTable
from posequant.quantize.thresholds import aciq_threshold, histogram, kl_thresholds
from posequant.quantize.weights import quantizable

Pair = tuple[Path, Path]
METHODS = ("kl", "aciq")


@pytest.fixture
def model(tmp_path: Path) -> Pair:
    return small_network().write(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_activation_scales_are_those_of_what_flows_into_the_layers(method: str, model: Pair, tmp_path: Path) -> None:
    crops = draw_crops(6)
    table = calibrate(*model, write_crops(tmp_path / "crops", crops), method)
    blobs = [small_network_in_numpy(small_network().model(), crop) for crop in crops]
    assert list(table.activation_scales) == [layer.name for layer in quantizable(small_network().layers)]
    for layer in quantizable(small_network().layers):
        inputs = np.stack([blob[layer.bottoms[0]] for blob in blobs])
        absmax = np.abs(inputs).max()
        if method == "kl":
            threshold = kl_thresholds(histogram(inputs, absmax)[np.newaxis], absmax[np.newaxis])[0]
        else:
            threshold = aciq_threshold(absmax[np.newaxis], inputs[0].size)[0]
        # A value on the border of two bins can fall into either, and then a neighbouring threshold may win.
        np.testing.assert_allclose(127 / table.activation_scales[layer.name], threshold, rtol=2 / 2048 * 16)


def test_layers_fed_by_one_split_share_a_scale(model: Pair, tmp_path: Path) -> None:
    scales = calibrate(*model, write_crops(tmp_path / "crops", draw_crops(3)), "kl").activation_scales
    assert scales["convdw_c"] == scales["conv_d"]
    assert scales["conv_f"] == scales["fc"]


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_threads_changes_nothing(method: str, model: Pair, tmp_path: Path) -> None:
    write_crops(tmp_path / "crops", draw_crops(7))
    for threads in (1, 3):
        write_table(tmp_path / f"{threads}.table", *model, tmp_path / "crops", method, threads=threads)
    assert (tmp_path / "1.table").read_bytes() == (tmp_path / "3.table").read_bytes()


def test_layers_kept_in_float_have_no_lines(model: Pair, tmp_path: Path) -> None:
    write_crops(tmp_path / "crops", draw_crops(2))
    write_table(tmp_path / "table", *model, tmp_path / "crops", "aciq", keep_float=["conv_a", "fc"])
    table = CalibrationTable.read(tmp_path / "table")
    assert not {"conv_a", "fc"} & {*table.weight_scales, *table.activation_scales}
    assert "conv_b" in table.weight_scales
    with pytest.raises(InputError, match="no layer conv_z of the model can be quantized"):
        calibrate(*model, crop_paths(tmp_path / "crops"), "aciq", keep_float=["conv_z"])


def nan_in(crop: NDArray[np.float32]) -> NDArray[np.float32]:
    crop[1, 2, 3] = np.nan
    return crop


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda crop: crop.astype(np.float64), "not a float32 tensor"),
        (lambda crop: crop.astype(np.uint8), "not a float32 tensor"),
        (lambda crop: crop[0], "not a float32 tensor"),
        (np.asfortranarray, "not a float32 tensor .* in C order"),
        (lambda crop: crop.astype(object), "not a .npy file"),
        (lambda crop: crop[:, :8], r"has the shape \(3, 8, 12\), but the first one has \(3, 16, 12\)"),
        (lambda crop: crop.transpose(1, 2, 0).copy(), r"has the shape \(16, 12, 3\)"),
        (nan_in, "holds NaN or infinity"),
        (lambda crop: crop * np.float32(np.inf), "holds NaN or infinity"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_crop_that_cannot_be_used_is_refused_by_name(
    method: str,
    damage: Callable[[NDArray[np.float32]], NDArray[np.generic]],
    message: str,
    model: Pair,
    tmp_path: Path,
) -> None:
    paths = write_crops(tmp_path / "crops", draw_crops(3))
    np.save(paths[1], damage(np.load(paths[1])))
    with pytest.raises(InputError, match=message) as caught:
        write_table(tmp_path / "table", *model, tmp_path / "crops", method, threads=2)
    assert str(paths[1]) in str(caught.value)
    assert not (tmp_path / "table").exists()


def test_files_that_are_not_there_are_refused_by_name(model: Pair, tmp_path: Path) -> None:
    write_crops(tmp_path / "crops", draw_crops(2))[1].unlink()
    with pytest.raises(InputError, match=r"000001.npy: no such file"):
        write_table(tmp_path / "table", *model, tmp_path / "crops", "kl")
    with pytest.raises(InputError, match="the list of crops is empty"):
        calibrate(*model, [], "kl")


def test_unknown_methods_are_refused(model: Pair, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'eq' is no method of calibration"):
        calibrate(*model, write_crops(tmp_path / "crops", draw_crops(1)), "eq")


def test_a_layer_that_sees_only_zeros_is_refused_by_name(tmp_path: Path) -> None:
    ones, zeros = np.ones((2, 3, 1, 1), np.float32), np.zeros((2, 3, 1, 1), np.float32)
    model = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("live", "in0", "a", zeros)
        .convolution("dead", "a", "out0", ones[:, :2])
        .write(tmp_path)
    )
    crops = write_crops(tmp_path / "crops", draw_crops(1))
    with pytest.raises(InputError, match="the input of layer dead is zero on every crop"):
        calibrate(*model, crops, "kl")
    # Weights that are all zero are no reason to stop: any scale does.
    table = calibrate(*model, crops, "kl", keep_float=["dead"])
    np.testing.assert_array_equal(table.weight_scales["live"], [1, 1])


def tool(folder: Path, body: str) -> str:
    """Write an executable that stands in the place of the official ncnn2table, and return its path."""
    path = folder / "ncnn2table"
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\nfrom pathlib import Path\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_the_official_tool_is_given_exact_tensors(model: Pair, tmp_path: Path) -> None:
    paths = write_crops(tmp_path / "crops", draw_crops(2))
    write_table(tmp_path / "ours", *model, tmp_path / "crops", "aciq")
    shutil.copy(tmp_path / "ours", tmp_path / "theirs")
    program = tool(
        tmp_path,
        "arguments = sys.argv[5:] + Path(sys.argv[3]).read_text().split()\n"
        f"Path({str(tmp_path / 'arguments')!r}).write_text(repr(arguments))\n"
        f"shutil.copy({str(tmp_path / 'theirs')!r}, sys.argv[4])",
    )
    out = tmp_path / "out"
    write_table(out, *model, tmp_path / "crops", "aciq", threads=2, keep_float=["fc"], tool=program)
    arguments = ["shape=[12,16,3]", "method=aciq", "thread=2", "type=1", *map(str, paths)]
    assert (tmp_path / "arguments").read_text() == repr(arguments)
    assert "fc" not in CalibrationTable.read(out).activation_scales


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(3)", "it failed with status 3"),
        ("Path(sys.argv[4]).write_text('conv_a twenty')", "ncnn2table: its table, line 1: could not convert"),
        ("", "it ended without a table"),
        ("Path(sys.argv[4]).write_text('')", "the file is empty"),
        ("Path(sys.argv[4]).write_text('conv_a_param_0 1.0 \\nconv_a nan \\n')", "layer conv_a has|scale nan of layer"),
        ("print('fopen x.npy failed'); Path(sys.argv[4]).write_text('conv_a 1.0 \\n')", "could not read everything"),
    ],
)
def test_what_the_official_tool_passes_over_is_an_error(body: str, message: str, model: Pair, tmp_path: Path) -> None:
    write_crops(tmp_path / "crops", draw_crops(1))
    with pytest.raises(InputError, match=message):
        write_table(tmp_path / "table", *model, tmp_path / "crops", "kl", tool=tool(tmp_path, body))
    assert not (tmp_path / "table").exists()


def test_a_tool_that_is_not_there_is_refused(model: Pair, tmp_path: Path) -> None:
    write_crops(tmp_path / "crops", draw_crops(1))
    with pytest.raises(InputError, match="nowhere/ncnn2table: cannot be run"):
        write_table(tmp_path / "table", *model, tmp_path / "crops", "kl", tool="nowhere/ncnn2table")
