"""The export by mmdeploy: its deploy config, its output and its bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.unit.export_fixtures import ExportedNetwork, exported_network, write_config

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.openmmlab import build_model, forward_tensors, load_config
from posequant.base.verify import run_onnx
from posequant.export.describe import describe_mmpose
from posequant.export.export import export_onnx, export_verified, write_deploy_config
from posequant.workflow.settings.export import Export


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> ExportedNetwork:
    return exported_network(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def simcc_network(tmp_path_factory: pytest.TempPathFactory) -> ExportedNetwork:
    return exported_network(tmp_path_factory.getbasetemp(), "simcc")


def test_deploy_config_as_mmdeploy_reads_it(tmp_path: Path) -> None:
    from mmdeploy.utils import get_backend, get_codebase, get_input_shape, get_ir_config, get_precision, get_task_type

    spec = describe_mmpose("tiny", write_config(tmp_path))
    path = tmp_path / "deploy_config.py"
    write_deploy_config(spec, Export(opset=12, precision="FP16"), path)
    assert get_codebase(str(path)).value == "mmpose"
    assert get_task_type(str(path)).value == "PoseDetection"
    assert get_input_shape(str(path)) == [64, 96]
    assert get_ir_config(str(path))["opset_version"] == 12
    assert get_ir_config(str(path))["output_names"] == ["output"]
    assert get_backend(str(path)).value == "ncnn"
    assert get_precision(str(path)) == "FP16"


def test_onnx_runtime_computes_what_pytorch_does(network: ExportedNetwork) -> None:
    model = build_model(load_config(network.config), network.checkpoint)
    (expected,) = forward_tensors(model, torch.from_numpy(network.crops))
    (found,) = run_onnx(network.onnx, network.crops)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert found.std() > 0.01


def test_record(network: ExportedNetwork) -> None:
    record = network.record
    assert record["verified_on_crops"] == 2
    assert record["difference"]["sqnr_db"] > 100
    assert record["opset"] == onnx.load(network.onnx).opset_import[0].version == 11
    assert record["sha256"] == {"model.onnx": sha256(network.onnx)}
    assert record["versions"]["mmdeploy"] == "1.3.1"


def test_static_names_and_shapes_without_paths(network: ExportedNetwork) -> None:
    graph = onnx.load(network.onnx).graph
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"input": [1, 3, 96, 64], "output": [1, 17, 24, 16]}
    assert b".py" not in network.onnx.read_bytes()


def test_same_inputs_give_the_same_bytes(
    network: ExportedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    again = export_onnx(*network.build(), network.deploy_config)
    assert again.SerializeToString(deterministic=True) == network.onnx.read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_simcc_is_exported_with_both_outputs(simcc_network: ExportedNetwork) -> None:
    x, y = run_onnx(simcc_network.onnx, simcc_network.crops)
    assert (x.shape, y.shape) == ((2, 17, 128), (2, 17, 192))
    assert [value.name for value in onnx.load(simcc_network.onnx).graph.output] == ["simcc_x", "simcc_y"]


def test_network_of_another_size_is_refused(network: ExportedNetwork, tmp_path: Path) -> None:
    taller, target = replace(network.spec, input_size=(64, 128)), tmp_path / "model.onnx"
    with pytest.raises(InputError, match=r"deploy_config\.py: input 'input' is 1x3x96x64, .* 1x3x128x64"):
        export_verified(
            network.config, network.checkpoint, network.deploy_config, spec=taller, crops=network.crops, target=target
        )
    assert not target.exists()


def test_network_whose_layers_do_not_fit_is_refused(network: ExportedNetwork, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace("in_channels=32", "in_channels=16"))
    torch.save(build_model(load_config(config), None).state_dict(), tmp_path / "checkpoint.pth")
    with pytest.raises(InputError, match=r"config\.py: the network does not run on a crop: .*channels"):
        export_verified(
            config,
            tmp_path / "checkpoint.pth",
            network.deploy_config,
            spec=network.spec,
            crops=network.crops,
            target=tmp_path / "model.onnx",
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = 1", "not a deploy config"),
        ("onnx_config = dict(input_shape=(4, 4)", "SyntaxError"),
        (None, "its backend is 'onnx"),
    ],
)
def test_broken_deploy_config(network: ExportedNetwork, tmp_path: Path, text: str | None, message: str) -> None:
    deploy_config = tmp_path / "deploy_config.py"
    if text is None:
        text = network.deploy_config.read_text().replace("'ncnn'", "'onnxruntime'")
    deploy_config.write_text(text)
    with pytest.raises(InputError, match=rf"deploy_config\.py: .*{message}"):
        export_onnx(*network.build(), deploy_config)
