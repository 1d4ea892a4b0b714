"""The clean-up of ONNX files from elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tests.unit.export_fixtures import convolution_weights, random_crops, save_onnx_by_hand

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.verify import run_onnx
from posequant.export.import_onnx import import_onnx

CONVOLUTION = helper.make_node("Conv", ["x", "weight"], ["y"])


def batch_norm_weights(size: int = 17) -> dict[str, NDArray[Any]]:
    draw = np.random.default_rng(1)
    names = ("scale", "shift", "mean", "variance")
    return {name: draw.uniform(0.5, 1.5, size).astype(np.float32) for name in names}


def awkward(path: Path) -> Path:
    """Write what MXNet's exporter did: opset 8, weights among the inputs, `spatial` 0 beside spatial weights."""
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"], spatial=0),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    weights = convolution_weights() | batch_norm_weights()
    return save_onnx_by_hand(path, nodes, weights, opset=8, weights_as_inputs=True)


def test_awkward_file_of_opset_8(tmp_path: Path) -> None:
    source, target = awkward(tmp_path / "mine.onnx"), tmp_path / "clean.onnx"
    record = import_onnx(source, target)
    assert record["changes"] == [
        "5 weights taken off the list of inputs",
        "attribute BatchNormalization spatial removed from 1 nodes",
        "upgraded from opset 8 to 13",
    ]
    assert record["opset"] == 13
    assert record["bit_equal"]
    assert record["sha256"] == {"clean.onnx": sha256(target)}
    clean = onnx.load(target)
    onnx.checker.check_model(clean, full_check=True)
    assert [value.name for value in clean.graph.input] == ["x"]
    assert not any(attribute.name == "spatial" for node in clean.graph.node for attribute in node.attribute)
    crops = random_crops(shape=(3, 8, 6))
    np.testing.assert_array_equal(run_onnx(target, crops)[0], run_onnx(source, crops)[0])


def test_clean_file_stays_what_it_is(tmp_path: Path) -> None:
    source = save_onnx_by_hand(tmp_path / "mine.onnx", [CONVOLUTION], convolution_weights(), opset=12)
    record = import_onnx(source, tmp_path / "clean.onnx")
    assert (record["changes"], record["opset"], record["bit_equal"]) == ([], 12, True)
    assert onnx.load(tmp_path / "clean.onnx").graph.node == onnx.load(source).graph.node


def test_open_batch_becomes_one(tmp_path: Path) -> None:
    source = save_onnx_by_hand(
        tmp_path / "mine.onnx", [CONVOLUTION], convolution_weights(), ("batch", 3, 8, 6), ("batch", 17, 8, 6)
    )
    assert import_onnx(source, tmp_path / "clean.onnx")["changes"] == ["batch fixed to 1"]
    (output,) = onnx.load(tmp_path / "clean.onnx").graph.output
    assert [size.dim_value for size in output.type.tensor_type.shape.dim] == [1, 17, 8, 6]


def test_external_weights_are_taken_in(tmp_path: Path) -> None:
    source = save_onnx_by_hand(tmp_path / "mine.onnx", [CONVOLUTION], convolution_weights())
    crops = random_crops(shape=(3, 8, 6))
    (expected,) = run_onnx(source, crops)
    onnx.save(onnx.load(source), source, save_as_external_data=True, location="mine.weights", size_threshold=0)
    import_onnx(source, tmp_path / "clean.onnx")
    (tmp_path / "mine.weights").unlink()
    np.testing.assert_array_equal(run_onnx(tmp_path / "clean.onnx", crops)[0], expected)
    with pytest.raises(InputError, match=r"mine\.onnx: not a readable ONNX file"):
        import_onnx(source, tmp_path / "clean.onnx")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 3, 8, 6), "batches of 4"),
        ((1, 3, "h", "w"), r"is 1x3x\?x\?\. Export the network for a fixed"),
        ((1, 3, 48), "is 1x3x48"),
    ],
)
def test_input_that_cannot_be_made_static(tmp_path: Path, shape: tuple[int | str, ...], message: str) -> None:
    source = save_onnx_by_hand(tmp_path / "mine.onnx", [CONVOLUTION], convolution_weights(), shape, shape)
    with pytest.raises(InputError, match=rf"mine\.onnx: .*{message}"):
        import_onnx(source, tmp_path / "clean.onnx")
    assert not (tmp_path / "clean.onnx").exists()


def test_attribute_that_means_something_is_not_dropped_silently(tmp_path: Path) -> None:
    nodes = [helper.make_node("BatchNormalization", ["x", "scale", "shift", "mean", "variance"], ["y"], spatial=0)]
    weights = {name: array.reshape(3, 8, 6) for name, array in batch_norm_weights(3 * 8 * 6).items()}
    source = save_onnx_by_hand(tmp_path / "mine.onnx", nodes, weights, output_shape=(1, 3, 8, 6), opset=8)
    with pytest.raises(InputError, match=r"mine\.onnx: does not run after clean-up\. Export the network again"):
        import_onnx(source, tmp_path / "clean.onnx")


def without_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def in_float16(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    (weight,) = model.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))


def with_an_unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Nonsense"


def with_weights_that_are_none(model: onnx.ModelProto) -> None:
    (weight,) = model.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(np.full((17, 3, 1, 1), np.nan, np.float32), weight.name))


def with_fewer_bytes_of_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-8]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_opset, "does not say its opset"),
        (in_float16, "input 'x' is float16. Export the network in float32"),
        (with_an_unknown_operator, "ONNX Runtime cannot load it .*Nonsense"),
        (with_weights_that_are_none, "gives values that are not finite"),
        (with_fewer_bytes_of_weights, "ONNX Runtime cannot load it .*weight"),
    ],
)
def test_faulty_network_is_named_in_one_line(
    tmp_path: Path, damage: Callable[[onnx.ModelProto], None], message: str
) -> None:
    source = save_onnx_by_hand(tmp_path / "mine.onnx", [CONVOLUTION], convolution_weights())
    model = onnx.load(source)
    damage(model)
    source.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=rf"mine\.onnx: .*{message}") as caught:
        import_onnx(source, tmp_path / "clean.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\0garbage" * 20, None])
def test_file_that_is_cut_off_or_no_network(tmp_path: Path, content: bytes | None) -> None:
    source = save_onnx_by_hand(tmp_path / "mine.onnx", [CONVOLUTION], convolution_weights())
    source.write_bytes(content or source.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"mine\.onnx: not a readable ONNX file"):
        import_onnx(source, tmp_path / "clean.onnx")


def test_two_images_are_refused(tmp_path: Path) -> None:
    source = save_onnx_by_hand(tmp_path / "mine.onnx", [CONVOLUTION], convolution_weights())
    model = onnx.load(source)
    model.graph.input.append(helper.make_tensor_value_info("second", onnx.TensorProto.FLOAT, [1, 3, 8, 6]))
    onnx.save(model, source)
    with pytest.raises(InputError, match=r"inputs \['x', 'second'\]"):
        import_onnx(source, tmp_path / "clean.onnx")
