"""onnxsim: fewer nodes, the same output."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.unit.export_fixtures import (
    ExportedNetwork,
    convolution_weights,
    exported_network,
    random_crops,
    save_onnx_by_hand,
)

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.verify import run_onnx
from posequant.export.simplify import simplify_verified


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> ExportedNetwork:
    return exported_network(tmp_path_factory.getbasetemp())


def test_shape_arithmetic_goes_and_the_output_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"]),
        helper.make_node("Shape", ["a"], ["shape"]),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Identity", ["b"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    source = save_onnx_by_hand(tmp_path / "model.onnx", nodes, convolution_weights())
    target, crops = tmp_path / "simplified.onnx", random_crops(shape=(3, 8, 6))
    record = simplify_verified(source, crops, target)
    assert record["nodes_before"] == {"Conv": 1, "Shape": 1, "Reshape": 1, "Identity": 1, "Relu": 1}
    assert record["nodes_after"] == {"Conv": 1, "Relu": 1}
    assert record["sha256"] == {"simplified.onnx": sha256(target)}
    np.testing.assert_array_equal(run_onnx(target, crops)[0], run_onnx(source, crops)[0])


def test_a_network_of_mmpose_in_one_file_of_the_same_bytes(network: ExportedNetwork, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        simplify_verified(network.onnx, network.crops, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    onnx.checker.check_model(onnx.load(tmp_path / "a.onnx"))


def test_what_onnxsim_cannot_take_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    source = save_onnx_by_hand(
        tmp_path / "model.onnx", nodes, {"shape": np.array([7, 7], np.int64)}, output_shape=(7, 7)
    )
    with pytest.raises(InputError, match=r"model\.onnx|the network"):
        simplify_verified(source, random_crops(shape=(3, 8, 6)), tmp_path / "simplified.onnx")
    assert not (tmp_path / "simplified.onnx").exists()
