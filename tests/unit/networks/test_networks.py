from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray
from tests.unit.evaluation_fixtures import export_onnx, make_model

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.base.openmmlab import build_model, load_config
from posequant.networks.opening import open_network

BACKENDS = ("pytorch", "onnxruntime", "openvino")


class Artifacts(NamedTuple):
    spec: ModelSpec
    files: dict[str, Sequence[Path]]
    crops: NDArray[np.float32]
    expected: list[NDArray[np.float32]]


@pytest.fixture(scope="module", params=["msra", "simcc"])
def artifacts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    folder = tmp_path_factory.mktemp("model")
    model = make_model(folder, request.param)
    onnx = export_onnx(model, folder / "model.onnx")
    xml = folder / "model.xml"
    ov.save_model(ov.convert_model(onnx), xml, compress_to_fp16=False)
    crops = np.random.default_rng(0).normal(0, 1, (5, *model.spec.input_shape)).astype(np.float32)
    network: Any = build_model(load_config(model.config), model.checkpoint)
    with torch.no_grad():
        output = network(torch.from_numpy(crops), None, mode="tensor")
    return Artifacts(
        spec=model.spec,
        files={
            "pytorch": (model.config, model.checkpoint),
            "onnxruntime": (onnx,),
            "openvino": (xml, xml.with_suffix(".bin")),
        },
        crops=crops,
        expected=[tensor.numpy() for tensor in (output if isinstance(output, tuple) else (output,))],
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_gives_what_mmpose_gives(artifacts: Artifacts, backend: str) -> None:
    network = open_network(backend, "fp32", artifacts.files[backend], artifacts.spec)
    outputs = network.forward(artifacts.crops)
    assert len(outputs) == len(artifacts.expected)
    for output, expected in zip(outputs, artifacts.expected, strict=True):
        assert output.dtype == np.float32
        # fp32 throughout: bf16, which OpenVINO would choose by itself, is off by a hundred times as much.
        np.testing.assert_allclose(output, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_that_share_a_network_do_not_disturb_each_other(artifacts: Artifacts, backend: str) -> None:
    network = open_network(backend, "fp32", artifacts.files[backend], artifacts.spec, threads=4)
    alone = [network.forward(crop[np.newaxis]) for crop in artifacts.crops]
    order = [index % 5 for index in range(40)]
    with ThreadPoolExecutor(4) as executor:
        together = list(executor.map(lambda index: network.forward(artifacts.crops[index : index + 1]), order))
    for index, outputs in zip(order, together, strict=True):
        for output, expected in zip(outputs, alone[index], strict=True):
            np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_crops_are_refused(artifacts: Artifacts, backend: str) -> None:
    network = open_network(backend, "fp32", artifacts.files[backend], artifacts.spec)
    unfit: tuple[Any, ...] = (
        artifacts.crops.astype(np.float64),
        (artifacts.crops * 50).astype(np.uint8),
        artifacts.crops[0],
        artifacts.crops[:, :2],
        artifacts.crops.transpose(0, 2, 3, 1),
        artifacts.crops[..., 1:],
    )
    for crops in unfit:
        with pytest.raises(InputError, match=r"takes crops of float32 \(N, 3, 96, 64\), not "):
            network.forward(crops)


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_and_damaged_files_are_named(artifacts: Artifacts, backend: str, tmp_path: Path) -> None:
    files = artifacts.files[backend]
    for place, path in enumerate(files):
        changed = list(files)
        changed[place] = tmp_path / path.name
        with pytest.raises(InputError, match=path.name):
            open_network(backend, "fp32", changed, artifacts.spec)
        for content in (b"", path.read_bytes()[: path.stat().st_size // 2]):
            changed[place].write_bytes(content)
            with pytest.raises(InputError, match=path.name):
                open_network(backend, "fp32", changed, artifacts.spec)


@pytest.mark.parametrize("backend", BACKENDS)
def test_number_of_files_is_checked(artifacts: Artifacts, backend: str) -> None:
    with pytest.raises(InputError, match=r"the backend loads an? .* but was given nothing"):
        open_network(backend, "fp32", [], artifacts.spec)
    with pytest.raises(InputError, match=r"but was given .*, .*, "):
        open_network(backend, "fp32", [Path("a"), Path("b"), Path("c")], artifacts.spec)


@pytest.mark.parametrize(
    ("backend", "precision"), [("pytorch", "int8"), ("onnxruntime", "fp16"), ("openvino", "bf16"), ("tflite", "fp32")]
)
def test_what_is_not_offered_is_refused(artifacts: Artifacts, backend: str, precision: str) -> None:
    with pytest.raises(InputError, match=f"'{backend}' with precision '{precision}' is not offered"):
        open_network(backend, precision, artifacts.files["onnxruntime"], artifacts.spec)


def test_network_of_another_contract_is_refused(artifacts: Artifacts) -> None:
    other_size = replace(artifacts.spec, input_size=(96, 96))
    other_outputs = replace(artifacts.spec, output_names=("a", "b", "c"))
    other_input = replace(artifacts.spec, input_name="data")
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(InputError, match=r"its input is \[1, 3, 96, 64\], .* says \[1, 3, 96, 96\]"):
            open_network(backend, "fp32", artifacts.files[backend], other_size)
        with pytest.raises(InputError, match="outputs"):
            open_network(backend, "fp32", artifacts.files[backend], other_outputs)
    with pytest.raises(InputError, match=r"has inputs \['input'\]"):
        open_network("onnxruntime", "fp32", artifacts.files["onnxruntime"], other_input)
