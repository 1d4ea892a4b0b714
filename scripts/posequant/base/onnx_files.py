"""Reading and writing ONNX files."""

from pathlib import Path
from typing import TYPE_CHECKING

from posequant.base.errors import InputError
from posequant.base.files import require_file, whole

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto


def load_onnx(path: Path, with_weights: bool = False) -> "ModelProto":
    """Parse an ONNX file; its external weight files are read only `with_weights`.

    Raises:
        InputError: it is missing, no ONNX file, or a weight file is missing.
    """
    import onnx

    require_file(path, "Give the path of an ONNX network.")
    try:
        model = onnx.load(path, load_external_data=with_weights)
    except Exception as error:  # protobuf's and onnx's own, without a common base
        raise InputError(f"{path}: not a readable ONNX file ({type(error).__name__}: {error})") from error
    if not model.graph.node:
        raise InputError(f"{path}: holds no network (an ONNX graph without nodes)")
    return model


def image_inputs(graph: "GraphProto") -> "list[ValueInfoProto]":
    """Return the inputs of an ONNX graph that are not weights: up to IR version 3 weights were listed as inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def opset_of(model: "ModelProto") -> int:
    """Return the version of ONNX's own operators that a network is written in."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def is_quantized(model: "ModelProto") -> bool:
    """Return whether an ONNX network computes anything in integers."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def save_onnx(model: "ModelProto", target: Path) -> None:
    """Check an ONNX network and write it as one file, whole or not at all; the same network gives the same bytes.

    Raises:
        InputError: it is not valid ONNX.
    """
    import onnx

    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InputError(f"{target}: would not be valid ONNX: {error}") from error
    with whole(target) as draft:
        draft.write_bytes(model.SerializeToString(deterministic=True))
