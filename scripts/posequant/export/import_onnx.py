"""Cleaning up an ONNX file from elsewhere, so that today's converters take it; its output stays what it was."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posequant.base.errors import InputError
from posequant.base.onnx_files import image_inputs, load_onnx, one_line, opset_of, save_onnx
from posequant.base.verify import Tensor, compare, hashes, run_onnx, versions

if TYPE_CHECKING:
    from onnx import ModelProto

OLDEST_OPSET = 11
"""Networks of an older opset are upgraded: `Resize` and `Pad` have had their present form only since opset 11."""

UPGRADED_OPSET = 13

_IR_VERSION = 7
"""Belongs to opset 11 to 13. Up to IR version 3, ONNX demanded that weights be listed among the inputs."""

_OBSOLETE_ATTRIBUTES = {("BatchNormalization", "spatial"), ("BatchNormalization", "is_test"), ("Dropout", "is_test")}
"""Attributes of operator sets up to 8 that today's converters crash on or refuse.

Exporters wrote them without meaning them: MXNet's gives `spatial` 0 beside weights that are spatial. Whether one can go
is not read off its value but seen in the output.
"""

_EXPORT_AGAIN = f"Export the network again with opset {OLDEST_OPSET} or later."
_SEED = 0
_RANDOM_INPUTS = 4
_MAX_RELATIVE_DIFFERENCE = 1e-5


def import_onnx(source: Path, target: Path) -> dict[str, Any]:
    """Clean up a network with one image input and check that it computes the same as before.

    Weights are taken off the list of inputs and out of external files, obsolete attributes removed, the batch fixed
    to 1, an old operator set upgraded, and shapes inferred.

    Args:
        source: the user's ONNX file.
        target: ONNX file to write.

    Returns:
        The record: what was changed, opset, difference on seeded random inputs, versions, sha256.

    Raises:
        InputError: the file is broken, ONNX Runtime cannot run it, or it cannot be cleaned up; the message says what
            to do.
    """
    model = load_onnx(source, with_weights=True)
    changes = [
        *_drop_weights_from_inputs(model),
        *_drop_obsolete_attributes(model),
        *_fix_batch(model, source),
    ]
    shape = [dimension.dim_value for dimension in image_inputs(model.graph)[0].type.tensor_type.shape.dim]
    inputs = np.random.default_rng(_SEED).standard_normal((_RANDOM_INPUTS, *shape[1:])).astype(np.float32)
    # First, as ONNX Runtime says best what is wrong with a network.
    before = run_onnx(source, inputs)
    model, upgrade = _upgrade(model, source)
    model = _infer_shapes(model, source)
    difference = _require_unchanged(before, _run_cleaned(model, inputs, source), source)
    save_onnx(model, target)
    return {
        "reference": source.name,
        "changes": [*changes, *upgrade],
        "opset": opset_of(model),
        "seed": _SEED,
        **difference,
        "sha256": hashes(target),
        "versions": versions("onnx", "onnxruntime"),
    }


def _drop_weights_from_inputs(model: "ModelProto") -> list[str]:
    graph = model.graph
    kept = list(image_inputs(graph))
    dropped = len(graph.input) - len(kept)
    del graph.input[:]
    graph.input.extend(kept)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return [f"{dropped} weights taken off the list of inputs"] if dropped else []


def _drop_obsolete_attributes(model: "ModelProto") -> list[str]:
    dropped: Counter[str] = Counter()
    for node in model.graph.node:
        for attribute in list(node.attribute):
            if (node.op_type, attribute.name) in _OBSOLETE_ATTRIBUTES:
                node.attribute.remove(attribute)
                dropped[f"{node.op_type} {attribute.name}"] += 1
    return [f"attribute {name} removed from {count} nodes" for name, count in dropped.items()]


def _fix_batch(model: "ModelProto", source: Path) -> list[str]:
    from onnx import TensorProto

    inputs = image_inputs(model.graph)
    if len(inputs) != 1:
        raise InputError(
            f"{source}: has the inputs {[value.name for value in inputs]}; export the network with one image input"
        )
    kind = inputs[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else f"type {kind}"
        raise InputError(
            f"{source}: input '{inputs[0].name}' is {name}. Export the network in float32; it is converted to float16 "
            "and quantized here."
        )
    dimensions = inputs[0].type.tensor_type.shape.dim
    sizes = [dimension.dim_value for dimension in dimensions]
    if len(sizes) != 4 or not all(sizes[1:]):
        shown = "x".join(str(size or "?") for size in sizes)
        raise InputError(
            f"{source}: input '{inputs[0].name}' is {shown}. Export the network for a fixed 1 x 3 x height x width."
        )
    if sizes[0] > 1:
        raise InputError(f"{source}: is exported for batches of {sizes[0]}. Export the network for a batch of 1.")
    if sizes[0] == 1:
        return []
    dimensions[0].Clear()
    dimensions[0].dim_value = 1
    return ["batch fixed to 1"]


def _upgrade(model: "ModelProto", source: Path) -> "tuple[ModelProto, list[str]]":
    from onnx import version_converter

    opset = opset_of(model)
    if opset >= OLDEST_OPSET:
        return model, []
    try:
        upgraded = version_converter.convert_version(model, UPGRADED_OPSET)
    except Exception as error:  # the converter's C++ throws RuntimeError and others
        raise InputError(
            f"{source}: cannot be upgraded from opset {opset} to {UPGRADED_OPSET} ({one_line(error)}). {_EXPORT_AGAIN}"
        ) from error
    return upgraded, [f"upgraded from opset {opset} to {UPGRADED_OPSET}"]


def _infer_shapes(model: "ModelProto", source: Path) -> "ModelProto":
    import onnx

    # What the file says of inner and output shapes may hold an open batch; the nodes say it anew.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(inferred)
    except Exception as error:  # onnx's own of two kinds, and protobuf's of text that is none
        raise InputError(f"{source}: is not consistent after clean-up: {one_line(error)}. {_EXPORT_AGAIN}") from error
    return inferred


def _run_cleaned(model: "ModelProto", inputs: Tensor, source: Path) -> list[Tensor]:
    try:
        return run_onnx(model, inputs)
    except InputError as error:
        raise InputError(f"{source}: does not run after clean-up. {_EXPORT_AGAIN} ({error})") from error


def _require_unchanged(before: list[Tensor], after: list[Tensor], source: Path) -> dict[str, Any]:
    try:
        difference = compare(before, after)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    scale = max(float(np.abs(array).max()) for array in before)
    if difference.max_abs > _MAX_RELATIVE_DIFFERENCE * scale:
        raise InputError(
            f"{source}: the clean-up would change the output (by {difference.max_abs:.3g}, where its greatest value is "
            f"{scale:.3g}). {_EXPORT_AGAIN}"
        )
    return {
        "verified_on_random_inputs": _RANDOM_INPUTS,
        "bit_equal": difference.max_abs == 0,
        "max_abs": difference.max_abs,
        "max_abs_allowed": _MAX_RELATIVE_DIFFERENCE * scale,
    }
