"""Quantization: weights, scales and marks worked by hand, and the INT8 network in ncnn beside the float one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Builder, draw_crops, small_network, sqnr, write_crops

from posequant.base.errors import InputError
from posequant.base.files import read_json, write_json
from posequant.base.verify import hashes
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize, quantize_files, quantized
from posequant.quantize.ncnn2table import write_table
from posequant.quantize.table import CalibrationTable
from posequant.quantize.weights import quantizable

Pair = tuple[Path, Path]


@pytest.fixture
def model(tmp_path: Path) -> Pair:
    return small_network().write(tmp_path)


@pytest.fixture(scope="module")
def kl_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    write_crops(folder / "crops", draw_crops(8))
    write_table(folder / "table", *small_network().write(folder), folder / "crops", "kl")
    return folder / "table"


@pytest.fixture
def table(kl_table: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(kl_table, tmp_path))


def marks(model: NcnnModel) -> dict[str, int]:
    return {layer.name: layer.int8_term for layer in model.layers if layer.int8_term}


def out(folder: Path) -> Pair:
    return folder / "int8.param", folder / "int8.bin"


def test_rounding_worked_by_hand() -> None:
    weight = np.array([0.49, 0.5, -0.5, 1.5, -2.5, 126.4, 126.5, 200, -200, 0], np.float32)
    np.testing.assert_array_equal(quantized(weight, np.ones(1, np.float32)), [0, 1, -1, 2, -3, 126, 127, 127, -127, 0])
    channels = np.array([1, 2, 3, 4], np.float32)
    np.testing.assert_array_equal(quantized(channels, np.array([10, 0.25], np.float32)), [10, 20, 1, 1])
    # In float32 the largest number below one half plus one half is one.
    np.testing.assert_array_equal(quantized(np.array([np.nextafter(np.float32(0.5), 0)]), np.ones(1, np.float32)), [1])


def test_layers_are_marked_by_what_reads_them(model: Pair, table: Path, tmp_path: Path) -> None:
    names = quantize_files(*model, table, *out(tmp_path))
    assert names == [layer.name for layer in quantizable(small_network().layers)]
    assert marks(NcnnModel.read(*out(tmp_path))) == {
        "conv_a": 102,  # read by conv_b
        "conv_b": 102,  # read by convdw_c and conv_d through a Split
        "convdw_c": 1,  # read by an addition
        "conv_d": 2,
        "conv_f": 2,  # read by a convolution and an addition through a Split
        "conv_g": 2,
        "conv_out": 2,
        "fc": 2,
    }


def test_a_depthwise_layer_in_a_chain_is_marked(tmp_path: Path) -> None:
    weight = np.ones((4, 1, 3, 3), np.float32)
    builder = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("depthwise", "in0", "a", weight, group=4)
        .convolution("pointwise", "a", "out0", np.ones((2, 4, 1, 1), np.float32))
    )
    scales = CalibrationTable(
        {"depthwise": np.arange(1, 5).astype(np.float32), "pointwise": np.array([7, 8], np.float32)},
        {"depthwise": np.float32(5), "pointwise": np.float32(6)},
    )
    int8 = quantize(builder.model(), scales)
    assert marks(int8) == {"depthwise": 101, "pointwise": 2}
    weights = int8.named("depthwise")[1]
    assert {name: values.tolist() for name, values in weights.items() if name != "weight"} == {
        "weight_scales": [1, 2, 3, 4],
        "bottom_scales": [5],
        "top_scales": [6],
    }
    np.testing.assert_array_equal(weights["weight"], np.repeat([1, 2, 3, 4], 9))
    np.testing.assert_array_equal(int8.named("pointwise")[1]["weight"], [7] * 4 + [8] * 4)


def test_scales_and_weights_are_those_of_the_table(model: Pair, table: Path, tmp_path: Path) -> None:
    quantize_files(*model, table, *out(tmp_path))
    int8, scales = NcnnModel.read(*out(tmp_path)), CalibrationTable.read(table)
    for layer in quantizable(small_network().layers):
        weights = int8.named(layer.name)[1]
        assert weights["weight"].dtype == np.int8
        assert np.abs(weights["weight"]).max() == (31 if layer.name in ("conv_a", "conv_d", "conv_f") else 127)
        np.testing.assert_array_equal(weights["weight_scales"], scales.weight_scales[layer.name])
        np.testing.assert_array_equal(weights["bottom_scales"], [scales.activation_scales[layer.name]])
        original = small_network().model().named(layer.name)[1]
        np.testing.assert_allclose(
            weights["weight"].reshape(len(weights["weight_scales"]), -1) / weights["weight_scales"][:, np.newaxis],
            original["weight"].reshape(len(weights["weight_scales"]), -1),
            atol=0.501 / weights["weight_scales"].min(),
        )
        if "bias" in original:
            np.testing.assert_array_equal(weights["bias"], original["bias"])
    assert int8.named("conv_a")[1]["top_scales"] == scales.activation_scales["conv_b"]
    assert int8.named("conv_b")[1]["top_scales"] == scales.activation_scales["conv_d"]


def test_the_param_text_is_that_of_ncnns_writer(model: Pair, table: Path, tmp_path: Path) -> None:
    builder = small_network()
    builder.convolution("clip", "out1", "out2", np.ones((4, 1, 1, 3), np.float32), stride=2)
    builder.layers[-1].params.update({-23310: "2,0.0,6.0", 9: "3", 31: "64"})
    scales = CalibrationTable.read(table)
    scales.weight_scales["clip"], scales.activation_scales["clip"] = np.ones(4, np.float32), np.float32(1)
    quantize(builder.model(), scales).write(*out(tmp_path))
    lines = out(tmp_path)[0].read_text().splitlines()
    # Values that are the default, or of the height and the width's, are left out; what the writer does not know stays.
    assert lines[2:4] == [
        "Input                    in0                      0 1 in0",
        "Convolution              conv_a                   1 1 in0 a 0=8 1=3 4=1 5=1 6=216 8=102 9=1",
    ]
    assert lines[8] == "BinaryOp                 add_e                    2 1 c d e"
    assert lines[-1] == (
        "Convolution              clip                     1 1 out1 out2 "
        "0=4 1=3 11=1 3=2 4=1 14=0 6=12 8=2 9=3 -23310=2,0.000000e+00,6.000000e+00 31=64"
    )


def test_what_stays_in_float_is_stored_as_float16(model: Pair, table: Path, tmp_path: Path) -> None:
    quantize_files(*model, table, *out(tmp_path), keep_float=["conv_b", "fc"])
    int8 = NcnnModel.read(*out(tmp_path))
    assert not {"conv_b", "fc"} & marks(int8).keys()
    for name in ("conv_b", "fc"):
        layer, weights = int8.named(name)
        original = small_network().model().named(name)[1]
        assert weights["weight"].dtype == np.float16
        assert weights["bias"].dtype == np.float32
        np.testing.assert_array_equal(weights["weight"], original["weight"].astype(np.float16))
        np.testing.assert_array_equal(weights["bias"], original["bias"])
        assert 8 not in layer.params
    # A float layer is neither given nor gives INT8.
    assert (marks(int8)["conv_a"], marks(int8)["convdw_c"], marks(int8)["conv_d"]) == (2, 1, 2)


def test_tiny_numbers_become_zero_as_in_ncnns_writer() -> None:
    bias = np.array([1e-31, -1e-31, 1e-29, 0], np.float32)
    builder = Builder().add("Input", "in0", "", "in0")
    builder.convolution("it", "in0", "out0", np.ones((4, 3, 1, 1), np.float32), bias)
    scales = CalibrationTable({"it": np.ones(4, np.float32)}, {"it": np.float32(1)})
    np.testing.assert_array_equal(quantize(builder.model(), scales).named("it")[1]["bias"], bias * [0, 0, 1, 0])
    np.testing.assert_array_equal(builder.weights[1]["bias"], bias)


@pytest.mark.parametrize("method", ["kl", "aciq"])
def test_the_int8_network_computes_nearly_what_the_float_one_does(method: str, model: Pair, tmp_path: Path) -> None:
    write_crops(tmp_path / "crops", draw_crops(8))
    write_table(tmp_path / "table", *model, tmp_path / "crops", method)
    crops = draw_crops(4, seed=9)
    reference = NcnnNetwork(*model, "fp32", INPUT_SHAPE).forward(crops)
    everything = quantize_files(*model, tmp_path / "table", *out(tmp_path))
    ratios = [[sqnr(*pair) for pair in zip(reference, forward_int8(out(tmp_path), crops), strict=True)]]
    quantize_files(*model, tmp_path / "table", *out(tmp_path), keep_float=everything[:-2])
    ratios.append([sqnr(*pair) for pair in zip(reference, forward_int8(out(tmp_path), crops), strict=True)])
    least = 20 if method == "kl" else 8
    assert all(ratio > least for ratio in ratios[0]), ratios
    assert all(few > all_ for all_, few in zip(*ratios, strict=True)), ratios


def forward_int8(pair: Pair, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return NcnnNetwork(*pair, "int8", INPUT_SHAPE).forward(crops)


def test_a_float16_model_is_quantized_too(model: Pair, table: Path, tmp_path: Path) -> None:
    read = NcnnModel.read(*model)
    half = [
        {name: values.astype(np.float16) if name == "weight" else values for name, values in weights.items()}
        for weights in read.weights
    ]
    pair = tmp_path / "half.param", tmp_path / "half.bin"
    NcnnModel(read.layers, half).write(*pair)
    quantize_files(*pair, table, *out(tmp_path), keep_float=["conv_a"])
    int8 = NcnnModel.read(*out(tmp_path))
    np.testing.assert_array_equal(int8.named("conv_a")[1]["weight"], half[1]["weight"])
    expected = quantized(half[2]["weight"].astype(np.float32), CalibrationTable.read(table).weight_scales["conv_b"])
    np.testing.assert_array_equal(int8.named("conv_b")[1]["weight"], expected)


def test_the_input_may_be_replaced(model: Pair, table: Path) -> None:
    quantize_files(*model, table, *model)
    assert marks(NcnnModel.read(*model))


def test_an_int8_model_is_not_quantized_again(model: Pair, table: Path, tmp_path: Path) -> None:
    quantize_files(*model, table, *out(tmp_path))
    with pytest.raises(InputError, match=r"int8.param: layer conv_a is INT8 already"):
        quantize_files(*out(tmp_path), table, tmp_path / "again.param", tmp_path / "again.bin")
    write_crops(tmp_path / "crops", draw_crops(1))
    with pytest.raises(InputError, match=r"int8.param: layer conv_a is INT8 already"):
        write_table(tmp_path / "again.table", *out(tmp_path), tmp_path / "crops", "kl")


def test_a_layer_without_scales_is_refused_unless_it_is_kept_in_float(model: Pair, table: Path, tmp_path: Path) -> None:
    CalibrationTable.read(table).without(["conv_g"]).write(table)
    with pytest.raises(InputError, match="layer conv_g has no weight scale"):
        quantize_files(*model, table, *out(tmp_path))
    assert not out(tmp_path)[0].exists()
    assert not out(tmp_path)[1].exists()
    quantize_files(*model, table, *out(tmp_path), keep_float=["conv_g"])


@pytest.mark.parametrize("factor", [1e30, 1e4, 1e-4])
def test_a_scale_of_other_weights_is_refused(model: Pair, table: Path, tmp_path: Path, factor: float) -> None:
    scales = CalibrationTable.read(table)
    scales.weight_scales["conv_g"][3] *= np.float32(factor)
    scales.write(table)
    with pytest.raises(
        InputError, match=r"of layer conv_g the largest weight of channel 3 becomes .*INT8 holds 1 to 127"
    ):
        quantize_files(*model, table, *out(tmp_path))
    assert not out(tmp_path)[0].exists()


def test_script_compares_with_the_makers_record_and_writes_its_own(model: Pair, table: Path, tmp_path: Path) -> None:
    record, own = tmp_path / "made.json", tmp_path / "ncnn2int8.json"
    write_json(record, {"keep_float": ["fc"], "sha256": hashes(*model, table)})
    script = [sys.executable, str(Path(__file__).parents[3] / "scripts/ncnn2int8.py"), "--table", str(table)]
    files = ("--param", model[0], "--bin", model[1], "--out-param", out(tmp_path)[0], "--out-bin", out(tmp_path)[1])
    command = [*script, *map(str, files), "--record", str(record), "--out-record", str(own)]
    subprocess.run(command, check=True, capture_output=True)
    written = read_json(own)
    assert written["sha256"] == hashes(*out(tmp_path))
    assert written["made_from"] == hashes(*model, table)
    assert "fc" in written["keep_float"]
    assert "fc" not in written["layers"]
    table.write_text(table.read_text().replace("7", "8", 1))
    failed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: {table}: changed after it was made")


def test_readers_of_one_requantized_output_need_one_scale(model: Pair, table: Path, tmp_path: Path) -> None:
    scales = CalibrationTable.read(table)
    scales.activation_scales["conv_d"] *= np.float32(2)
    scales.write(table)
    with pytest.raises(InputError, match="convdw_c and conv_d both read the output of layer conv_b, but"):
        quantize_files(*model, table, *out(tmp_path))
    # Where nothing is requantized each has its own.
    quantize_files(*model, table, *out(tmp_path), keep_float=["conv_b"])


@pytest.mark.parametrize(
    ("inputs", "outputs", "group", "miscomputed"), [(8, 8, 8, False), (8, 16, 8, False), (16, 16, 2, True)]
)
def test_grouped_convolutions_stay_in_float_unless_ncnn_can_compute_them(
    inputs: int, outputs: int, group: int, miscomputed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    pair = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("stem", "in0", "a", rng.normal(size=(inputs, 3, 1, 1)).astype(np.float32))
        .convolution(
            "it", "a", "out0", rng.normal(size=(outputs, inputs // group, 3, 3)).astype(np.float32), group=group
        )
        .write(tmp_path)
    )
    write_crops(tmp_path / "crops", draw_crops(2))
    table = tmp_path / "table"
    write_table(table, *pair, tmp_path / "crops", "aciq")
    notice = "computes grouped convolutions wrongly in INT8: it\n"
    assert (notice in capsys.readouterr().err) == miscomputed
    expected_names = ["stem"] if miscomputed else ["stem", "it"]
    assert list(CalibrationTable.read(table).activation_scales) == expected_names
    assert quantize_files(*pair, table, *out(tmp_path)) == expected_names
    if miscomputed:  # the official ncnn2table writes their lines, and a user may name them
        with table.open("a") as lines:
            lines.write(f"it_param_0 {'1.0 ' * group}\nit 1.0\n")
        assert quantize_files(*pair, table, *out(tmp_path), keep_float=["it"]) == expected_names
        assert notice in capsys.readouterr().err
    crops = draw_crops(2)
    expected = NcnnNetwork(*pair, "fp32", INPUT_SHAPE).forward(crops)[0]
    assert sqnr(expected, forward_int8(out(tmp_path), crops)[0]) > 15


def test_nothing_quantized_is_an_error(model: Pair, table: Path, tmp_path: Path) -> None:
    names = [layer.name for layer in quantizable(small_network().layers)]
    with pytest.raises(InputError, match="no layer is left to quantize"):
        quantize_files(*model, table, *out(tmp_path), keep_float=names)


def tool(folder: Path, body: str) -> str:
    """Write an executable that stands in the place of the official ncnn2int8, and return its path."""
    path = folder / "ncnn2int8"
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_the_official_tool_is_run_in_place_of_ours(model: Pair, table: Path, tmp_path: Path) -> None:
    scripts = Path(__file__).parents[3] / "scripts"
    program = tool(
        tmp_path,
        f"sys.path.insert(0, {str(scripts)!r})\n"
        "from pathlib import Path\n"
        "from posequant.quantize.ncnn2int8 import quantize_files\n"
        "param, bin_, out_param, out_bin, table = map(Path, sys.argv[1:])\n"
        "assert 'fc ' not in table.read_text()\n"
        "quantize_files(param, bin_, table, out_param, out_bin, keep_float=['fc'])\n",
    )
    quantize_files(*model, table, *out(tmp_path), keep_float=["fc"])
    ours = [path.read_bytes() for path in out(tmp_path)]
    for path in out(tmp_path):
        path.unlink()
    quantize_files(*model, table, *out(tmp_path), keep_float=["fc"], tool=program)
    assert [path.read_bytes() for path in out(tmp_path)] == ours


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(1)", "it failed with status 1"),
        ("", "no such file"),
        (
            "shutil.copy(sys.argv[1], sys.argv[3]); shutil.copy(sys.argv[2], sys.argv[4])",
            "it left layer conv_a in float",
        ),
        ("open(sys.argv[3], 'w'); open(sys.argv[4], 'w')", "the file is empty"),
    ],
)
def test_what_the_official_tool_passes_over_is_an_error(
    body: str, message: str, model: Pair, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        quantize_files(*model, table, *out(tmp_path), tool=tool(tmp_path, body))
    # The files that it wrote are gone by now.
    assert not re.search(r"/\.\S+/", str(caught.value))
    assert not out(tmp_path)[0].exists()
    assert not out(tmp_path)[1].exists()
