"""What pnnx loses is named, whether ncnn crashes on what is left or computes something else."""

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, helper
from tests.unit.export.test_convert import by_hand
from tests.unit.export_fixtures import convolution_weights, random_crops, save_onnx_by_hand

from posequant.base.errors import InputError
from posequant.export.convert import convert_to_ncnn

node = helper.make_node


def converted(folder: Path, nodes: list[NodeProto]) -> None:
    """Convert `x` -> `nodes` -> `b` -> convolution to ncnn, as it is."""
    backwards = {
        name: np.array([value]) for name, value in (("from", -1), ("to", -(2**60)), ("along", 3), ("step", -1))
    }
    nodes = [node("Sin", ["x"], ["a"], name="start"), *nodes, node("Conv", ["b", "weight"], ["y"], name="head")]
    source = save_onnx_by_hand(folder / "mine.onnx", nodes, convolution_weights() | backwards)
    crops = random_crops(shape=(3, 8, 6))
    convert_to_ncnn(source, by_hand(source), crops, "fp32", out=(folder / "m.param", folder / "m.bin"))


def test_crash_names_the_layer_and_the_operator(tmp_path: Path) -> None:
    parts = node("Split", ["a"], ["p", "q", "r"], axis=1, name="cut")
    joined = node("Concat", ["r", "p", "q"], ["b"], axis=1)
    with pytest.raises(InputError) as caught:
        converted(tmp_path, [parts, joined])
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'mine.onnx'}: pnnx made a network on which a native library crashed (SIGSEGV"
    )
    assert "while it computed layer split_0 (Slice) of" in message
    assert "pnnx loses the operator Split 'cut' (axis=1), or a part of it. Write it in another way" in message
    assert not (tmp_path / "m.param").exists()


def test_operator_that_vanishes_is_named(tmp_path: Path) -> None:
    # pnnx passes over a slice that goes backwards.
    mirrored = node("Slice", ["a", "from", "to", "along", "step"], ["b"], name="mirror")
    with pytest.raises(InputError, match=r"does not compute the same: .* pnnx loses the operator Slice 'mirror'"):
        converted(tmp_path, [mirrored])


def test_operator_of_which_a_part_is_lost_is_named(tmp_path: Path) -> None:
    # pnnx passes over the third.
    two, three = node("Neg", ["x"], ["p"]), node("Max", ["a", "p", "x"], ["b"], name="greatest")
    with pytest.raises(InputError, match=r"pnnx loses the operator Max 'greatest', or a part of it"):
        converted(tmp_path, [two, three])
