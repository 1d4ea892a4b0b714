"""Readers of files and settings, given valid content with a few changes: they read it, or raise an `InputError`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.fuzzing import fuzz
from tests.unit.mutations import mutated_bytes, mutated_lines, mutated_tree, read_or_refused
from tests.unit.ncnn_fixtures import small_network, unfused_network

from posequant.export.cut import cut, input_of, named_as_pnnx_does, outputs_of
from posequant.export.fold import fold
from posequant.ncnn_format.model import NcnnModel, encode_weights, format_param, parse_param, weight_slots
from posequant.quantize.table import CalibrationTable
from posequant.quantize.weights import quantizable, weight_scale_count
from posequant.workflow.study_config import validate_config

ROOT = Path(__file__).parents[2]
PARAM = format_param(small_network().layers)
MODEL = small_network().model()
BIN = b"".join(encode_weights(*layer) for layer in zip(MODEL.layers, MODEL.weights, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzing")


def table_text() -> str:
    lines = []
    for layer in quantizable(MODEL.layers):
        lines.append(f"{layer.name}_param_0 " + "50.000000 " * weight_scale_count(layer))
    return "\n".join([*lines, *(f"{layer.name} 20.000000 " for layer in quantizable(MODEL.layers))]) + "\n"


def config() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    split = {"images": "images", "annotations": "people.json"}
    codec = {"type": "MSRAHeatmap", "input_size": [192, 256], "heatmap_size": [48, 64], "sigma": 2}
    network = {"source": "onnx", "onnx": "net.onnx", "input_size": [192, 256], "mean": [0, 0, 0], "std": [1, 1, 1]}
    content["studies"]["mine"] = {
        "dataset": {"train": split, "val": split, "detections": "boxes.json"},
        "protocol": {"boxes": "detections", "flip_test": True},
        "curve": {"people": [4, 8], "seeds": [0]},
        "models": {"mine": network | {"codec": codec}},
        "variants": ["onnxruntime", "ncnn-int8"],
    }
    return content


@fuzz
@given(text=mutated_lines(PARAM))
def test_param(text: str) -> None:
    def read() -> None:
        for layer in parse_param(text):
            weight_slots(layer)

    read_or_refused(read)


@fuzz
@given(text=st.just(PARAM) | mutated_lines(PARAM), content=mutated_bytes(BIN))
def test_param_and_bin(folder: Path, text: str, content: bytes) -> None:
    param, bin_ = folder / "net.param", folder / "net.bin"
    param.write_bytes(text.encode())
    bin_.write_bytes(content)
    read_or_refused(lambda: NcnnModel.read(param, bin_))


@fuzz
@given(text=mutated_lines(format_param(unfused_network().layers)))
def test_network_to_take_in(folder: Path, text: str) -> None:
    whole, bin_ = folder / "whole.param", folder / "taken.bin"
    if not bin_.exists():
        unfused_network().model().write(whole, bin_)
    param = folder / "taken.param"
    param.write_bytes(text.encode())

    def take_in() -> None:
        model = NcnnModel.read(param, bin_)
        ends = input_of(model.layers, None), outputs_of(model.layers, None, 1)
        taken, _ = fold(named_as_pnnx_does(cut(model, *ends), *ends), ["out0"])
        for layer, weights in zip(taken.layers, taken.weights, strict=True):
            encode_weights(layer, weights)

    read_or_refused(take_in)


@fuzz
@given(text=mutated_lines(table_text()))
def test_table(folder: Path, text: str) -> None:
    path = folder / "net.table"
    path.write_bytes(text.encode())

    def read() -> None:
        table = CalibrationTable.read(path)
        table.check(MODEL.layers, [], path)
        table.check_weights(MODEL, path)
        # What is let through can be used.
        assert all(np.isfinite(scales).all() for scales in table.weight_scales.values())

    read_or_refused(read)


@fuzz
@given(content=mutated_tree(config()))
def test_configuration(content: dict[str, Any]) -> None:
    read_or_refused(lambda: validate_config(content))
