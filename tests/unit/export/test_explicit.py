"""What ONNX leaves open and pnnx loses is written out: same output, and ncnn computes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper
from tests.unit.export.test_describe import CODEC, SETTINGS
from tests.unit.export_fixtures import random_crops, save_onnx_by_hand

from posequant.base.verify import run_onnx
from posequant.export.convert import convert_to_ncnn
from posequant.export.describe import describe_onnx
from posequant.export.import_onnx import import_onnx
from posequant.export.simplify import simplify_verified
from posequant.workflow.settings.export import Codec

node = helper.make_node
OF_THREE = [node("Mul", ["p", "q"], ["s"]), node("Sub", ["s", "r"], ["b"])]


def way_to_ncnn(
    folder: Path,
    nodes: Sequence[NodeProto],
    channels: int,
    opset: int = 13,
    constants: dict[str, NDArray[Any]] | None = None,
    size: tuple[int, int] = (8, 6),
) -> onnx.ModelProto:
    """Convert x -> 1x1 convolution to 15 channels `a` -> `nodes` -> `b` -> 1x1 convolution; return it simplified."""
    draw = np.random.default_rng(0)
    weights = {
        "first": draw.standard_normal((15, 3, 1, 1)).astype(np.float32),
        "last": draw.standard_normal((17, channels, 1, 1)).astype(np.float32),
        **(constants or {}),
    }
    all_nodes = [node("Conv", ["x", "first"], ["a"]), *nodes, node("Conv", ["b", "last"], ["y"])]
    source = save_onnx_by_hand(folder / "m.onnx", all_nodes, weights, output_shape=(1, 17, *size), opset=opset)
    crops = random_crops(shape=(3, 8, 6))
    import_onnx(source, folder / "clean.onnx")
    simplify_verified(folder / "clean.onnx", crops, folder / "simple.onnx")
    np.testing.assert_allclose(run_onnx(folder / "simple.onnx", crops)[0], run_onnx(source, crops)[0], rtol=1e-5)
    codec = Codec(**CODEC | {"heatmap_size": size[::-1]})
    spec = describe_onnx("by_hand", folder / "clean.onnx", SETTINGS.model_copy(update={"codec": codec}))
    convert_to_ncnn(folder / "simple.onnx", spec, crops, "fp32", out=(folder / "m.param", folder / "m.bin"))
    return onnx.load(folder / "simple.onnx")


@pytest.mark.parametrize(
    ("split", "channels", "opset"),
    [
        ([node("Split", ["a"], ["p", "q", "r"], axis=1), *OF_THREE], 5, 13),
        ([node("Split", ["a"], ["p", "q", "r"], axis=-3), *OF_THREE], 5, 11),
        ([node("Split", ["a"], ["p", "q"], axis=1, num_outputs=2), node("Concat", ["q", "p"], ["b"], axis=1)], 15, 18),
        ([node("Split", ["a"], ["p", "q", "r"], axis=1), node("Sub", ["q", "p"], ["b"])], 5, 13),
    ],
    ids=["three parts", "negative axis, old opset", "two odd parts", "a part that nobody reads"],
)
def test_split_without_sizes(tmp_path: Path, split: list[NodeProto], channels: int, opset: int) -> None:
    simple = way_to_ncnn(tmp_path, split, channels, opset)
    assert all(len(one.input) > 1 or opset < 13 for one in simple.graph.node if one.op_type == "Split")


@pytest.mark.parametrize("axis", [2, -1])
def test_split_of_rows_and_columns(tmp_path: Path, axis: int) -> None:
    parts = [node("Split", ["a"], ["p", "q"], axis=axis), node("Sub", ["p", "q"], ["b"])]
    way_to_ncnn(tmp_path, parts, 15, size=(4, 6) if axis == 2 else (8, 3))


@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_greatest_of_four(tmp_path: Path, operator: str) -> None:
    others = [node("Relu", ["a"], ["p"]), node("Neg", ["a"], ["q"]), node("Mul", ["a", "half"], ["r"])]
    simple = way_to_ncnn(
        tmp_path,
        [*others, node(operator, ["p", "q", "r", "a"], ["b"])],
        15,
        constants={"half": np.array([0.5], np.float32)},
    )
    assert [len(one.input) for one in simple.graph.node if one.op_type == operator] == [2, 2, 2]


def test_doubled_pixels_whose_coordinates_are_the_default(tmp_path: Path) -> None:
    way_to_ncnn(
        tmp_path, [node("Resize", ["a", "", "", "s"], ["b"])], 15, constants={"s": np.array([1, 15, 16, 12])},
        size=(16, 12),
    )  # fmt: skip
