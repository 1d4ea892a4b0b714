"""INT8 in OpenVINO and ONNX Runtime: what it computes with, that it is executed, and that it repeats."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.unit.export.test_describe import SETTINGS
from tests.unit.export_fixtures import exported_network, in_a_process_of_its_own, random_crops, save_onnx_by_hand
from tests.unit.ncnn_fixtures import write_crops

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.model_spec import ModelSpec
from posequant.base.onnx_files import open_session
from posequant.base.openmmlab import build_model, load_config
from posequant.base.verify import compare, run_onnx
from posequant.certify.runtime_operators import (
    OperatorRecord,
    arithmetic,
    count_macs,
    onnxruntime_operators,
    openvino_operators,
)
from posequant.export.convert import convert_to_openvino
from posequant.export.describe import describe_onnx
from posequant.export.simplify import simplify_verified
from posequant.networks.opening import open_network
from posequant.networks.openvino import compile_openvino, read_openvino
from posequant.quantize.onnxruntime import quantize_onnxruntime
from posequant.quantize.openvino import quantize_openvino

ROOT = Path(__file__).parents[3]
BACKENDS = ("onnxruntime", "openvino")


class Quantized(NamedTuple):
    """A network with three deconvolutions, in fp32 and quantized, by backend."""

    folder: Path
    spec: ModelSpec
    crops: NDArray[np.float32]
    fp32: dict[str, Sequence[Path]]
    int8: dict[str, Sequence[Path]]
    records: dict[str, dict[str, Any]]
    torch_macs: int


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    exported = exported_network(tmp_path_factory.getbasetemp())
    folder = tmp_path_factory.mktemp("quantized")
    onnx_file, xml = folder / "simplified.onnx", folder / "openvino.xml"
    simplify_verified(exported.onnx, exported.crops, onnx_file)
    convert_to_openvino(onnx_file, exported.spec, exported.crops, xml)
    crops = random_crops(12)
    write_crops(folder / "crops", crops)
    exported.spec.save(folder / "model.json")
    int8_onnx, int8_xml = folder / "int8.onnx", folder / "int8.xml"
    records = {
        "onnxruntime": quantize_onnxruntime(onnx_file, exported.spec, crops, int8_onnx),
        "openvino": in_a_process_of_its_own(
            quantize_openvino, xml, xml.with_suffix(".bin"), exported.spec, crops, int8_xml
        ),
    }
    return Quantized(
        folder=folder,
        spec=exported.spec,
        crops=crops,
        fp32={"onnxruntime": (onnx_file,), "openvino": (xml, xml.with_suffix(".bin"))},
        int8={"onnxruntime": (int8_onnx,), "openvino": (int8_xml, int8_xml.with_suffix(".bin"))},
        records=records,
        torch_macs=count_torch_macs(exported.config, exported.checkpoint, crops[:1]),
    )


def count_torch_macs(config: Path, checkpoint: Path, crops: NDArray[np.float32]) -> int:
    macs = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal macs
        places = inputs[0] if isinstance(module, torch.nn.ConvTranspose2d) else output
        macs += places[0, 0].numel() * module.weight.numel()

    model: Any = build_model(load_config(config), checkpoint)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.from_numpy(crops), None, mode="tensor")
    return macs


def operators_of(backend: str, files: Sequence[Path]) -> list[OperatorRecord]:
    if backend == "openvino":
        xml, weights = files
        model = read_openvino(xml, weights)
        return openvino_operators(model, compile_openvino(model, xml, weights, threads=1))
    (path,) = files
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(path, optimized=optimized)
        return onnxruntime_operators(path, optimized)


def values_inside(path: Path, crops: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Everything that flows through a float ONNX network, by its name."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    output = model.graph.output[0].name
    model.graph.output.extend(value for value in model.graph.value_info if value.name != output)
    names = [value.name for value in model.graph.output]
    return {model.graph.input[0].name: crops} | dict(zip(names, run_onnx(model, crops), strict=True))


def test_scales_of_onnx_runtime_are_those_of_the_mean_extremes_and_of_the_weights(quantized: Quantized) -> None:
    (path,) = quantized.int8["onnxruntime"]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    (float_path,) = quantized.fp32["onnxruntime"]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(float_path).graph.initializer}
    activations = values_inside(float_path, quantized.crops)
    counts = {"activations": 0, "weights": 0}
    for name, values in activations.items():
        if f"{name}_scale" not in stored:
            continue
        rows = values.reshape(len(quantized.crops), -1)
        # Zero must be a value of the integers.
        low, high = min(rows.min(axis=1).mean(), 0), max(rows.max(axis=1).mean(), 0)
        scale = (high - low) / 255
        assert stored[f"{name}_zero_point"].dtype == np.uint8
        np.testing.assert_allclose(stored[f"{name}_scale"], scale, rtol=1e-4, err_msg=name)
        assert abs(int(stored[f"{name}_zero_point"]) + low / scale) <= 0.51
        counts["activations"] += 1
    for name, weight in weights.items():
        if f"{name}_quantized" not in stored or weight.ndim != 4:
            continue
        scales = np.abs(weight).max(axis=(1, 2, 3)) / 127
        np.testing.assert_allclose(stored[f"{name}_scale"], scales, rtol=1e-5, err_msg=name)
        steps = weight / scales[:, np.newaxis, np.newaxis, np.newaxis]
        assert np.abs(stored[f"{name}_quantized"] - steps).max() <= 0.501
        assert not stored[f"{name}_zero_point"].any()
        counts["weights"] += 1
    assert counts["activations"] >= 20
    assert counts["weights"] == 20


def test_what_onnx_runtime_would_only_lose_by_stays_in_float(quantized: Quantized) -> None:
    (path,) = quantized.int8["onnxruntime"]
    graph = onnx.load(path).graph
    makers = {node.output[0]: node for node in graph.node}
    left = {node.output[0]: node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")}
    in_float = [node for node in left.values() if node.input[1] not in makers]
    assert [node.op_type for node in in_float] == ["ConvTranspose"] * 3 + ["Conv"]
    assert in_float[-1].output[0] == graph.output[0].name


@pytest.mark.parametrize("backend", BACKENDS)
def test_int8_is_close_to_fp32(backend: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    sizes = [(16, 3, 3, 3), (16, 16, 3, 3), (16, 16, 3, 3), (2, 16, 1, 1)]
    weights = {
        f"w{place}": generator.normal(0, 1 / np.sqrt(np.prod(size[1:])), size) for place, size in enumerate(sizes)
    }
    values = ["x", *(f"relu{place}" for place in range(3))]
    nodes = []
    for place, (name, weight) in enumerate(weights.items()):
        output = "y" if place == 3 else f"conv{place}"
        pads = [weight.shape[2] // 2] * 4
        nodes.append(helper.make_node("Conv", [values[place], name], [output], name=f"node{place}", pads=pads))
        if place < 3:
            nodes.append(helper.make_node("Relu", [output], [values[place + 1]]))
    arrays = {name: weight.astype(np.float32) for name, weight in weights.items()}
    source = save_onnx_by_hand(tmp_path / "mine.onnx", nodes, arrays)
    spec = describe_onnx("by_hand", source, SETTINGS)
    crops = random_crops(64, spec.input_shape)
    convert_to_openvino(source, spec, crops[:1], tmp_path / "mine.xml")
    target = tmp_path / ("int8.onnx" if backend == "onnxruntime" else "int8.xml")
    if backend == "onnxruntime":
        quantize_onnxruntime(source, spec, crops[:32], target)
        files = [target]
    else:
        in_a_process_of_its_own(
            quantize_openvino, tmp_path / "mine.xml", tmp_path / "mine.bin", spec, crops[:32], target
        )
        files = [target, target.with_suffix(".bin")]
    found = open_network(backend, "int8", files, spec).forward(crops[32:])
    difference = compare(run_onnx(source, crops[32:]), found)
    assert difference.sqnr_db is not None
    # Uniform noise of 1/255 of the range in each of four layers; an image beyond the mean extremes is clipped.
    assert 20 < difference.sqnr_db < 50


@pytest.mark.parametrize(("backend", "integers"), [("onnxruntime", 20), ("openvino", 21)])
def test_int8_is_executed(quantized: Quantized, backend: str, integers: int) -> None:
    records = operators_of(backend, quantized.int8[backend])
    assert len(records) == 24
    convolutions = [record for record in records if record.kernel in ("Conv", "Convolution")]
    assert sum(record.int8 for record in convolutions) == integers
    # Deconvolutions of few channels: OpenVINO has no INT8 kernel for them on every processor.
    assert not any(record.int8 for record in records if record.kernel == "ConvTranspose")
    full = operators_of(backend, quantized.fp32[backend])
    assert not any(record.int8 for record in full)
    for found in (records, full):
        assert sum(record.macs for record in found) == quantized.torch_macs


def test_int8_weights_are_stored_in_bytes(quantized: Quantized) -> None:
    types = [tensor.data_type for tensor in onnx.load(quantized.int8["onnxruntime"][0]).graph.initializer]
    assert types.count(TensorProto.INT8) >= 20
    constants = ov.Core().read_model(quantized.int8["openvino"][0]).get_ops()
    large = [one for one in constants if one.get_type_name() == "Constant" and len(one.get_output_shape(0)) == 4]
    assert {one.get_element_type().get_type_name() for one in large if np.prod(one.get_output_shape(0)) > 300} == {"i8"}


def test_work_in_int8() -> None:
    records = [OperatorRecord("a", "Conv", True, 30), OperatorRecord("b", "Conv", False, 10)]
    work = arithmetic(records)["work"]
    assert work == {"macs": 40, "int8": 0.75, "float": 0.25}


def test_macs_by_hand() -> None:
    assert count_macs("Conv", (8, 3, 5, 5), (1, 3, 20, 10), (1, 8, 10, 5)) == 8 * 3 * 25 * 50
    assert count_macs("GroupConvolution", (8, 1, 1, 3, 3), (1, 8, 4, 4), (1, 8, 4, 4)) == 8 * 9 * 16
    assert count_macs("ConvTranspose", (8, 1, 4, 4), (1, 8, 6, 5), (1, 8, 12, 10)) == 8 * 16 * 30
    assert count_macs("MatMul", (32, 64), (1, 17, 32), (1, 17, 64)) == 17 * 32 * 64


@pytest.mark.parametrize("backend", BACKENDS)
def test_record_says_what_was_made(quantized: Quantized, backend: str) -> None:
    record, files = quantized.records[backend], quantized.int8[backend]
    assert record["sha256"] == {path.name: sha256(path) for path in files}
    assert (record["calibrated_on_crops"], record["compared_on_crops"]) == (12, 8)
    full, int8 = (
        open_network(backend, precision, paths[backend], quantized.spec).forward(quantized.crops[:8])
        for precision, paths in (("fp32", quantized.fp32), ("int8", quantized.int8))
    )
    assert record["difference"]["sqnr_db"] == pytest.approx(compare(full, int8).sqnr_db)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_repeat_on_any_number_of_processors(quantized: Quantized, backend: str, tmp_path: Path) -> None:
    names = {"onnxruntime": ["--onnx"], "openvino": ["--xml", "--bin"]}[backend]
    options = [str(part) for pair in zip(names, quantized.fp32[backend], strict=True) for part in pair]
    everyone = sorted(os.sched_getaffinity(0))
    for seed, processors in (("1", everyone), ("2", everyone[:1])):
        out = tmp_path / seed / quantized.int8[backend][0].name
        command = [sys.executable, f"{ROOT}/scripts/quantize_{backend}.py", *options]
        command += ["--model", f"{quantized.folder}/model.json", "--crops", f"{quantized.folder}/crops"]
        command += ["--out", str(out), "--out-record", f"{out}.json"]
        placed = [sys.executable, "-c", PLACED, ",".join(map(str, processors)), *command]
        subprocess.run(placed, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed})
        for path in quantized.int8[backend]:
            assert (out.parent / path.name).read_bytes() == path.read_bytes(), path.name


# Threads are counted by the processors that a program may use when it starts.
PLACED = (
    "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(','))); os.execv(sys.argv[2], sys.argv[2:])"
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_networks_of_the_other_precision_are_refused(quantized: Quantized, backend: str) -> None:
    name = quantized.fp32[backend][0].name
    with pytest.raises(InputError, match=rf"{name}: nothing in it is quantized\. Quantize the network first"):
        open_network(backend, "int8", quantized.fp32[backend], quantized.spec)
    name = quantized.int8[backend][0].name
    with pytest.raises(InputError, match=rf"{name}: the network is quantized to INT8, so it cannot be run as fp32"):
        open_network(backend, "fp32", quantized.int8[backend], quantized.spec)


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_damaged_and_quantized_files_are_named(quantized: Quantized, backend: str, tmp_path: Path) -> None:
    def quantize(files: Sequence[Path]) -> None:
        if backend == "onnxruntime":
            quantize_onnxruntime(files[0], quantized.spec, quantized.crops, tmp_path / "out.onnx")
        else:
            in_a_process_of_its_own(
                quantize_openvino, files[0], files[1], quantized.spec, quantized.crops, tmp_path / "out.xml"
            )

    with pytest.raises(InputError, match="is quantized to INT8"):
        quantize(quantized.int8[backend])
    for source, action in ((quantized.fp32, quantize), (quantized.int8, None)):
        for place, path in enumerate(source[backend]):
            changed = list(source[backend])
            changed[place] = tmp_path / f"changed-{path.name}"
            for content in (None, b"", path.read_bytes()[: path.stat().st_size // 2]):
                changed[place].unlink(missing_ok=True)
                if content is not None:
                    changed[place].write_bytes(content)
                with pytest.raises(InputError, match=f"changed-{path.name}"):
                    if action:
                        action(changed)
                    else:
                        open_network(backend, "int8", changed, quantized.spec)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_network_without_anything_to_quantize_is_refused(backend: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], axes=[1]),
        helper.make_node("Sin", ["largest"], ["a"]),
        helper.make_node("Mul", ["a", "weight"], ["y"]),
    ]
    weight = {"weight": np.full((1, 17, 1, 1), 2, np.float32)}
    source = save_onnx_by_hand(tmp_path / "mine.onnx", nodes, weight)
    spec = describe_onnx("by_hand", source, SETTINGS)
    crops = random_crops(shape=spec.input_shape)
    if backend == "onnxruntime":
        with pytest.raises(InputError, match=r"mine\.onnx: ONNX Runtime finds nothing to quantize"):
            quantize_onnxruntime(source, spec, crops, tmp_path / "out.onnx")
    else:
        convert_to_openvino(source, spec, crops, tmp_path / "mine.xml")
        with pytest.raises(InputError, match=r"mine\.xml: NNCF (finds nothing to|cannot) quantize"):
            in_a_process_of_its_own(
                quantize_openvino, tmp_path / "mine.xml", tmp_path / "mine.bin", spec, crops, tmp_path / "out.xml"
            )


def test_nodes_without_names_and_several_outputs(tmp_path: Path) -> None:
    """As SimCC's two: the makers of both stay in float."""
    exported = exported_network(tmp_path, "simcc")
    simplify_verified(exported.onnx, exported.crops, tmp_path / "simplified.onnx")
    model = onnx.load(tmp_path / "simplified.onnx")
    for node in model.graph.node:
        node.ClearField("name")
    onnx.save(model, tmp_path / "nameless.onnx")
    quantize_onnxruntime(tmp_path / "nameless.onnx", exported.spec, random_crops(4), tmp_path / "int8.onnx")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    assert [made[value.name] for value in graph.output] == ["MatMul", "MatMul"] or all(
        made[value.name] != "DequantizeLinear" for value in graph.output
    )
    convert_to_openvino(tmp_path / "simplified.onnx", exported.spec, exported.crops, tmp_path / "model.xml")
    target = tmp_path / "int8.xml"
    in_a_process_of_its_own(
        quantize_openvino, tmp_path / "model.xml", tmp_path / "model.bin", exported.spec, random_crops(4), target
    )
    records = operators_of("openvino", (target, target.with_suffix(".bin")))
    assert sum(record.kernel == "MatMul" for record in records) == 2
    assert replace(records[0], int8=True) == records[0]
