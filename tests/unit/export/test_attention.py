"""Attention with tensors of four axes: the same output, and what looks alike is left alone."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from posequant.base.verify import run_onnx
from posequant.export.attention import split_heads_in_four_axes

BATCH, TOKENS, HEADS, CHANNELS = 2, 5, 3, 4
SIZE = [1, BATCH, TOKENS, 3 * HEADS * CHANNELS]
PERM = [2, 0, 3, 1, 4]


def attention(perm: list[int] = PERM, axis: int = 0, parts: tuple[int, ...] = (0, 1, -1)) -> ModelProto:
    """Return a network that takes `parts` of a product as transformers do, each an output."""
    shape = np.array([BATCH, TOKENS, 3, HEADS, CHANNELS], np.int64)
    tensors = [numpy_helper.from_array(shape, "shape")]
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["product"]),
        helper.make_node("Transpose", ["product"], ["moved"], perm=perm),
    ]
    for index, part in enumerate(parts):
        nodes.append(helper.make_node("Gather", ["moved", f"part_{index}"], [f"y{index}"], axis=axis))
        tensors.append(numpy_helper.from_array(np.array(part, np.int64), f"part_{index}"))
    return network(nodes, tensors, [f"y{index}" for index in range(len(parts))])


def network(nodes: list[NodeProto], tensors: list[TensorProto], outputs: list[str], rank: int = 4) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SIZE)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name in outputs],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model)


def ranks(model: ModelProto) -> set[int]:
    """Return how many axes the tensors of a network have."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return {len(value.type.tensor_type.shape.dim) for value in inferred.graph.value_info}


def run(model: ModelProto) -> list[NDArray[np.float32]]:
    return run_onnx(model, np.random.default_rng(0).standard_normal(SIZE).astype(np.float32))


def test_same_output_with_four_axes() -> None:
    model = attention()
    reference = run(model)
    assert ranks(model) == {5}
    assert split_heads_in_four_axes(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert ranks(model) == {4}
    for expected, found in zip(reference, run(model), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "model",
    [
        attention(perm=[2, 0, 1, 3, 4]),
        attention(axis=1),
        # The product itself is wanted as well.
        network(
            [
                helper.make_node("Reshape", ["x", "shape"], ["product"]),
                helper.make_node("Transpose", ["product"], ["y"], perm=PERM),
            ],
            [numpy_helper.from_array(np.array([BATCH, TOKENS, 3, HEADS, CHANNELS], np.int64), "shape")],
            ["y"],
            rank=5,
        ),
    ],
    ids=["other axes", "other index", "whole product"],
)
def test_what_looks_alike_is_left_alone(model: ModelProto) -> None:
    before = model.SerializeToString()
    assert split_heads_in_four_axes(model) == 0
    assert model.SerializeToString() == before
