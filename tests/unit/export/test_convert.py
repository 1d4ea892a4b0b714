"""pnnx and OpenVINO: what they write computes what ONNX Runtime does, and what they cannot take is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from tests.unit.export.test_describe import SETTINGS
from tests.unit.export.test_import_onnx import awkward
from tests.unit.export_fixtures import (
    ExportedNetwork,
    convolution_weights,
    exported_network,
    random_crops,
    save_onnx_by_hand,
)

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import run_onnx
from posequant.export.convert import convert_to_ncnn, convert_to_openvino
from posequant.export.describe import describe_onnx
from posequant.export.import_onnx import import_onnx
from posequant.export.simplify import simplify_verified
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.openvino import OpenVinoNetwork


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> ExportedNetwork:
    exported = exported_network(tmp_path_factory.getbasetemp())
    simplified = exported.onnx.with_name("simplified.onnx")
    simplify_verified(exported.onnx, exported.crops, simplified)
    return replace(exported, onnx=simplified)


def by_hand(path: Path) -> ModelSpec:
    return describe_onnx("by_hand", path, SETTINGS)


@pytest.mark.parametrize(("weights", "decibel"), [("fp32", 100), ("fp16", 45)])
def test_ncnn_computes_what_onnx_runtime_does(
    network: ExportedNetwork, tmp_path: Path, weights: str, decibel: float
) -> None:
    param, bin_ = tmp_path / "model.param", tmp_path / "model.bin"
    record = convert_to_ncnn(network.onnx, network.spec, network.crops, weights, out=(param, bin_))  # type: ignore[arg-type]
    (expected,) = run_onnx(network.onnx, network.crops)
    (found,) = NcnnNetwork(param, bin_, "fp32", network.spec.input_shape).forward(network.crops)
    sqnr = 10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum())
    assert sqnr > decibel
    assert record["difference"]["sqnr_db"] == pytest.approx(sqnr, abs=0.1)
    assert record["layers"]["Convolution"] == 21
    assert record["layers"]["Deconvolution"] == 3
    assert record["sha256"] == {"model.param": sha256(param), "model.bin": sha256(bin_)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.param"]


def test_fp16_weights_take_half_the_space_and_bytes_repeat(network: ExportedNetwork, tmp_path: Path) -> None:
    files = {}
    for name, weights in (("a", "fp32"), ("b", "fp32"), ("c", "fp16")):
        param, bin_ = tmp_path / f"{name}.param", tmp_path / f"{name}.bin"
        convert_to_ncnn(network.onnx, network.spec, network.crops, weights, out=(param, bin_))  # type: ignore[arg-type]
        files[name] = (param.read_bytes(), bin_.read_bytes())
    assert files["a"] == files["b"]
    assert len(files["c"][1]) < 0.55 * len(files["a"][1])


def test_a_wrong_network_is_not_written(
    network: ExportedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posequant.export.convert.MIN_SQNR_DB", {"fp32": 300.0})
    with pytest.raises(InputError, match="conversion to ncnn: the converted network does not compute the same"):
        convert_to_ncnn(
            network.onnx, network.spec, network.crops, "fp32", out=(tmp_path / "model.param", tmp_path / "model.bin")
        )
    assert list(tmp_path.iterdir()) == []


def test_crash_of_pnnx_is_said_and_the_clean_up_mends_it(tmp_path: Path) -> None:
    source, clean = awkward(tmp_path / "mine.onnx"), tmp_path / "clean.onnx"
    spec, crops = by_hand(source), random_crops(shape=(3, 8, 6))
    with pytest.raises(InputError, match=r"(?s)mine\.onnx: pnnx (crashed|failed|ended).*import_onnx\.py.*last words"):
        convert_to_ncnn(source, spec, crops, "fp32", out=(tmp_path / "m.param", tmp_path / "m.bin"))
    import_onnx(source, clean)
    convert_to_ncnn(clean, spec, crops, "fp32", out=(tmp_path / "m.param", tmp_path / "m.bin"))


def test_layer_that_ncnn_lacks_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"]),
        helper.make_node("IsNaN", ["a"], ["mask"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Where", ["mask", "a", "b"], ["y"]),
    ]
    source = save_onnx_by_hand(tmp_path / "mine.onnx", nodes, convolution_weights())
    with pytest.raises(InputError, match=r"mine\.onnx: pnnx leaves 'IsNaN.*' as a layer of type IsNaN"):
        convert_to_ncnn(
            source,
            by_hand(source),
            random_crops(shape=(3, 8, 6)),
            "fp32",
            out=(tmp_path / "m.param", tmp_path / "m.bin"),
        )


def test_fault_of_a_converted_network_names_the_users_file(network: ExportedNetwork, tmp_path: Path) -> None:
    other = replace(network.spec, codec=network.spec.codec | {"heatmap_size": [16, 16]})
    with pytest.raises(InputError, match=rf"^{network.onnx}, converted/model\.ncnn\.param: its outputs for a crop are"):
        convert_to_ncnn(network.onnx, other, network.crops, "fp32", out=(tmp_path / "m.param", tmp_path / "m.bin"))


def test_openvino_computes_what_onnx_runtime_does(network: ExportedNetwork, tmp_path: Path) -> None:
    xml = tmp_path / "model.xml"
    record = convert_to_openvino(network.onnx, network.spec, network.crops, xml)
    (expected,) = run_onnx(network.onnx, network.crops)
    (found,) = OpenVinoNetwork(xml, tmp_path / "model.bin", network.spec, threads=1).forward(network.crops)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert record["sha256"] == {"model.xml": sha256(xml), "model.bin": sha256(tmp_path / "model.bin")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]


def test_file_that_is_no_network(network: ExportedNetwork, tmp_path: Path) -> None:
    source = tmp_path / "mine.onnx"
    source.write_bytes(b"not a network")
    with pytest.raises(InputError, match=r"(?s)mine\.onnx: pnnx (crashed|failed|ended)"):
        convert_to_ncnn(source, network.spec, network.crops, "fp32", out=(tmp_path / "m.param", tmp_path / "m.bin"))
    with pytest.raises(InputError, match=r"mine\.onnx: OpenVINO cannot convert"):
        convert_to_openvino(source, network.spec, network.crops, tmp_path / "m.xml")
