"""What OpenVINO and ONNX Runtime really compute in INT8: each operator with weights, as the runtime executes it.

How a runtime executes a quantized network is its own affair, and depends on the processor. So it is asked: OpenVINO
for its runtime model, ONNX Runtime for its optimized graph.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.onnx_files import load_onnx

if TYPE_CHECKING:
    import openvino as ov

_ONNX_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_OPENVINO_TYPES = (
    *("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"),
    "MatMul",
)
_TRANSPOSED = ("ConvTranspose", "ConvolutionBackpropData", "GroupConvolutionBackpropData")


@dataclass(frozen=True)
class OperatorRecord:
    """One operator with weights.

    Attributes:
        name: its name in the artifact.
        kernel: its type there.
        int8: whether the runtime computes it in INT8; otherwise in float32.
        macs: multiply-accumulate operations for one crop.
    """

    name: str
    kernel: str
    int8: bool
    macs: int


def arithmetic(records: Sequence[OperatorRecord]) -> dict[str, Any]:
    """Return what a certificate says of the arithmetic: `layers`, and of all `work` the share in INT8 and in float."""
    macs = sum(record.macs for record in records)
    int8 = sum(record.macs for record in records if record.int8) / macs
    return {
        "layers": [asdict(record) for record in records],
        "work": {"macs": macs, "int8": int8, "float": 1 - int8},
        "overflow": None,
    }


def openvino_operators(model: "ov.Model", compiled: "ov.CompiledModel") -> list[OperatorRecord]:
    """Return the record of each convolution and matrix product with weights of a network.

    Args:
        model: the network.
        compiled: what the runtime made of it.
    """
    executed = compiled.get_runtime_model()
    precisions = {}
    for operator in executed.get_ops():
        info = operator.get_rt_info()
        for name in info["originalLayersNames"].astype(str).split(","):
            precisions[name] = info["runtimePrecision"].astype(str)
    return [
        OperatorRecord(
            name=operator.get_friendly_name(),
            kernel=operator.get_type_name(),
            int8=precisions.get(operator.get_friendly_name()) in ("i8", "u8"),
            macs=count_macs(
                operator.get_type_name(),
                operator.get_input_shape(1),
                operator.get_input_shape(0),
                operator.get_output_shape(0),
            ),
        )
        for operator in model.get_ordered_ops()
        if operator.get_type_name() in _OPENVINO_TYPES and _is_constant(operator.input_value(1).get_node())
    ]


def onnxruntime_operators(path: Path, optimized: Path) -> list[OperatorRecord]:
    """Return the record of each convolution and matrix product with weights of an ONNX file.

    Args:
        path: the file.
        optimized: the graph that the runtime executes in its place, as `open_session` writes it.

    Raises:
        InputError: a file is missing or damaged.
    """
    import onnx

    model = load_onnx(path, with_weights=True)
    # Its optimizers mark the names of the nodes that they put in the place of others.
    executed = {
        re.sub(r"(_token_\d+|_nchwc)$", "", node.name): node.op_type for node in load_onnx(optimized).graph.node
    }
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    # A quantized weight goes by the name of its dequantized values.
    shapes |= {
        node.output[0]: shapes[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes
    }
    values = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return [
        OperatorRecord(
            name=node.name,
            kernel=node.op_type,
            int8=_is_integer(executed.get(node.name, "")),
            macs=count_macs(node.op_type, shapes[node.input[1]], values[node.input[0]], values[node.output[0]]),
        )
        for node in graph.node
        if node.op_type in _ONNX_TYPES and node.input[1] in shapes
    ]


def count_macs(kernel: str, weight: Sequence[int], input_: Sequence[int], output: Sequence[int]) -> int:
    """Return the multiply-accumulates of an operator: its places, each of which takes all weights once.

    Args:
        kernel: its type.
        weight: shape of its weights.
        input_: shape of its input for one crop; a transposed convolution has a place for each of its pixels.
        output: shape of its output; a convolution has a place for each of its pixels, a matrix product for each row.
    """
    if "Conv" not in kernel:
        return prod(output[:-1]) * prod(weight)
    return prod((input_ if kernel in _TRANSPOSED else output)[2:]) * prod(weight)


def _is_constant(node: Any) -> bool:
    """Return whether an OpenVINO node depends on constants only, as a dequantized weight does."""
    inputs = [value.get_node() for value in node.input_values()]
    return all(map(_is_constant, inputs)) if inputs else node.get_type_name() == "Constant"


def _is_integer(kernel: str) -> bool:
    """Return whether a node type of ONNX Runtime's is one of integers: QLinearConv, QGemm, MatMulIntegerToFloat."""
    return kernel.startswith(("QLinear", "QGemm")) or "Integer" in kernel
