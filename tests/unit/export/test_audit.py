"""The table of operators against what the network is made of, and what ncnn lacks."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import helper
from tests.unit.export_fixtures import ExportedNetwork, convolution_weights, exported_network, save_onnx_by_hand

from posequant.base.errors import InputError
from posequant.base.openmmlab import build_model, load_config
from posequant.export.audit import audit, ncnn_has_layer, traced_operators
from posequant.export.export import export_onnx


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> ExportedNetwork:
    return exported_network(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def table(network: ExportedNetwork) -> pd.DataFrame:
    with traced_operators() as traced:
        export_onnx(*network.build(), network.deploy_config)
    return audit(network.onnx, traced)


def rows(table: pd.DataFrame, **conditions: Any) -> list[tuple[Any, ...]]:
    for column, value in conditions.items():
        table = table[table[column] == value]
    return [tuple(row) for row in table.to_numpy().tolist()]


def test_every_pytorch_operator_is_counted_as_torch_jit_traces_it(
    network: ExportedNetwork, table: pd.DataFrame
) -> None:
    model: Any = build_model(load_config(network.config), network.checkpoint)
    model.forward = lambda crops: model.head(model.extract_feat(crops))
    traced = torch.jit.trace(model, torch.from_numpy(network.crops[:1]))  # type: ignore[no-untyped-call]
    kinds = Counter(node.kind().removesuffix("_") for node in traced.inlined_graph.nodes())
    counts = table.groupby("torch_operator")["torch_count"].sum().to_dict()
    for operator in ("aten::_convolution", "aten::batch_norm", "aten::relu", "aten::add", "aten::max_pool2d"):
        assert counts[operator] == kinds[operator] > 0


def test_every_onnx_node_is_counted(network: ExportedNetwork, table: pd.DataFrame) -> None:
    nodes = Counter(node.op_type for node in onnx.load(network.onnx).graph.node)
    assert table[table["onnx_count"] > 0].groupby("onnx_operator")["onnx_count"].sum().to_dict() == dict(nodes)
    assert set(table["opset"]) == {11}


def test_the_ways_of_a_resnet_with_deconvolutions(table: pd.DataFrame) -> None:
    assert rows(table, onnx_operator="Conv") == [("aten::_convolution", 21, "Conv", 11, 21, "Convolution", "yes")]
    assert rows(table, onnx_operator="ConvTranspose") == [
        ("aten::_convolution", 3, "ConvTranspose", 11, 3, "Deconvolution", "no")
    ]
    assert rows(table, onnx_operator="Relu")[0][:2] == ("aten::relu", 20)
    assert rows(table, onnx_operator="Add") == [("aten::add", 8, "Add", 11, 8, "BinaryOp", "no")]
    # The exporter folds the batch norms behind convolutions, onnxsim those behind deconvolutions.
    assert rows(table, torch_operator="aten::batch_norm") == [
        ("aten::batch_norm", 3, "BatchNormalization", 11, 3, "", ""),
        ("aten::batch_norm", 20, "", 11, 0, "", ""),
    ]


def test_ncnn_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ncnn_has_layer("Convolution")
    assert not ncnn_has_layer("NonZero")


def grouped(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "depthwise"], ["a"], name="depthwise", kernel_shape=[1, 1], group=3),
        helper.make_node("Conv", ["a", "weight"], ["b"], name="pointwise"),
        helper.make_node("Identity", ["b"], ["y"]),
    ]
    weights = convolution_weights() | {"depthwise": np.ones((3, 1, 1, 1), np.float32)}
    return save_onnx_by_hand(tmp_path / "model.onnx", nodes, weights)


def test_onnx_file_without_pytorch(tmp_path: Path) -> None:
    table = audit(grouped(tmp_path))
    assert set(table["torch_operator"]) == {""}
    found = {(row.onnx_operator, row.onnx_count, row.ncnn_layer, row.int8) for row in table.itertuples()}
    assert found == {
        ("Conv", 1, "ConvolutionDepthWise", "yes"),
        ("Conv", 1, "Convolution", "yes"),
        ("Identity", 1, "", ""),
    }


def test_operator_that_ncnn_lacks_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], name="first"),
        helper.make_node("Where", ["mask", "a", "a2"], ["y"], name="choose"),
        helper.make_node("IsNaN", ["a"], ["mask"], name="nan"),
        helper.make_node("Neg", ["a"], ["a2"], name="negate"),
    ]
    nodes = [nodes[0], nodes[2], nodes[3], nodes[1]]
    path = save_onnx_by_hand(tmp_path / "model.onnx", nodes, convolution_weights())
    with pytest.raises(
        InputError, match=r"model\.onnx: ncnn has no layer for IsNaN \(first node: nan\); Where .*choose"
    ):
        audit(path)


def test_operator_of_another_domain_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], name="first"),
        helper.make_node("Magic", ["a"], ["y"], name="trick", domain="custom"),
    ]
    path = save_onnx_by_hand(tmp_path / "model.onnx", nodes, convolution_weights())
    with pytest.raises(InputError, match=r"custom::Magic \(first node: trick\)"):
        audit(path)


def test_shape_arithmetic_that_onnxsim_folds_is_no_obstacle(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"]),
        helper.make_node("Shape", ["a"], ["shape"]),
        helper.make_node("Reshape", ["a", "shape"], ["y"]),
    ]
    table = audit(save_onnx_by_hand(tmp_path / "model.onnx", nodes, convolution_weights()))
    assert rows(table, onnx_operator="Shape")[0][-2:] == ("", "")
