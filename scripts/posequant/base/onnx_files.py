"""Reading, writing and opening ONNX files."""

from pathlib import Path
from typing import TYPE_CHECKING

from posequant.base.errors import InputError
from posequant.base.files import require_file, whole

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto
    from onnxruntime import InferenceSession


def load_onnx(path: Path, with_weights: bool = False) -> "ModelProto":
    """Parse an ONNX file; its external weight files are read only `with_weights`.

    Raises:
        InputError: it is missing, no ONNX file, or does not say its opset; or a weight file is missing.
    """
    import onnx

    require_file(path, "Give the path of an ONNX network.")
    try:
        model = onnx.load(path, load_external_data=with_weights)
    except Exception as error:  # protobuf's and onnx's own, without a common base
        raise InputError(f"{path}: not a readable ONNX file ({type(error).__name__}: {one_line(error)})") from error
    if not model.graph.node:
        raise InputError(f"{path}: holds no network (an ONNX graph without nodes)")
    if not _own_opsets(model):
        raise InputError(f"{path}: does not say its opset (opset_import). The file is damaged, or was edited by hand.")
    return model


def image_inputs(graph: "GraphProto") -> "list[ValueInfoProto]":
    """Return the inputs of an ONNX graph that are not weights: up to IR version 3 weights were listed as inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def opset_of(model: "ModelProto") -> int:
    """Return the version of ONNX's own operators that a network is written in."""
    return _own_opsets(model)[0]


def _own_opsets(model: "ModelProto") -> list[int]:
    return [int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")]


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
        raise InputError(f"{target}: would not be valid ONNX: {one_line(error)}") from error
    with whole(target) as draft:
        draft.write_bytes(model.SerializeToString(deterministic=True))


def open_session(model: "Path | ModelProto", threads: int = 1, optimized: Path | None = None) -> "InferenceSession":
    """Return a session of ONNX Runtime on the CPU.

    Args:
        model: a file, or the network in memory.
        threads: how many compute one operator; 1 for callers that bring the threads.
        optimized: where to write the graph that is executed in its place.

    Raises:
        InputError: the file is missing, or no network that ONNX Runtime can run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = str(require_file(model)) if isinstance(model, Path) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        reason = str(error).partition("\n")[0]
        raise InputError(f"{name_of(model)}: ONNX Runtime cannot load it ({reason})") from error


def one_line(error: Exception) -> str:
    """Return what an exception of another library says, as part of a sentence: in one line, without its full stop."""
    return " ".join(str(error).split()).rstrip(".")


def name_of(model: "Path | ModelProto") -> str:
    """Return how a message names a network."""
    return str(model) if isinstance(model, Path) else "the network"
