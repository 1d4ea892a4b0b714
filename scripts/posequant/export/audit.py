"""The operators of a network on their way from PyTorch over ONNX to ncnn, and which of them can run in INT8."""

import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.errors import InputError
from posequant.base.files import whole
from posequant.base.html import write_page
from posequant.base.markdown import table
from posequant.base.onnx_files import load_onnx
from posequant.base.openmmlab import make_importable
from posequant.export.simplify import simplify

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from pandas import DataFrame

INT8_LAYERS = frozenset({"Convolution", "ConvolutionDepthWise", "InnerProduct"})
"""The ncnn layers that ncnn2table calibrates and ncnn2int8 quantizes (tools/quantize in ncnn's sources)."""

_BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum")
_UNARY = (
    *("Abs", "Neg", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Reciprocal"),
    *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan"),
)
_REDUCTION = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum")

# ncnn's name for an ONNX operator, where the two differ (ncnn's documentation, developer-guide/operators.md).
# Convolutions are told apart in `ncnn_layer`.
_LAYER_NAMES = {
    **dict.fromkeys(_BINARY, "BinaryOp"),
    **dict.fromkeys(_UNARY, "UnaryOp"),
    **dict.fromkeys(_REDUCTION, "Reduction"),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"), "Pooling"),
    **dict.fromkeys(("Resize", "Upsample"), "Interp"),
    **dict.fromkeys(("Relu", "LeakyRelu"), "ReLU"),
    **dict.fromkeys(("Slice", "Gather"), "Crop"),
    "BatchNormalization": "BatchNorm",
    "Celu": "CELU",
    "DepthToSpace": "PixelShuffle",
    "Elu": "ELU",
    "Gelu": "GELU",
    "GroupNormalization": "GroupNorm",
    "Identity": "Noop",
    "InstanceNormalization": "InstanceNorm",
    "LayerNormalization": "LayerNorm",
    "PRelu": "PReLU",
    "Pad": "Padding",
    "Selu": "SELU",
    "SpaceToDepth": "Reorg",
    "Split": "Slice",
    "Tanh": "TanH",
    "Transpose": "Permute",
    "Unsqueeze": "ExpandDims",
}

_FUSED = "(onnxsim)"


@dataclass(frozen=True)
class Traced:
    """One operator of the traced PyTorch graph, and the ONNX operators that the exporter made of it."""

    operator: str
    scope: str
    made: tuple[str, ...]


def audit(onnx_file: Path, traced: Sequence[Traced] = ()) -> "DataFrame":
    """Tabulate the operators of a network: PyTorch, ONNX, ncnn.

    Args:
        onnx_file: the network, before it is simplified.
        traced: what `traced_operators` collected while it was exported; nothing for an ONNX file from elsewhere.

    Returns:
        One row for each way from PyTorch over ONNX to ncnn: `torch_operator` and `torch_count` (empty and 0 where the
        exporter added the ONNX operator; "(onnxsim)" where onnxsim makes it of several, beyond those exported),
        `onnx_operator` (empty where the PyTorch operator was folded into others or does nothing),
        `opset`, `onnx_count`, `ncnn_layer` (empty for constants and what onnxsim folds away), `int8` (yes, no, empty).

    Raises:
        InputError: the file is missing or broken, or ncnn lacks an operator: the message names it and its first node.
    """
    return _table(load_onnx(onnx_file, with_weights=True), onnx_file, traced)


def write_operators(operators: "DataFrame", csv: Path, page: Path) -> None:
    """Write what `audit` returned as CSV and as a Markdown table."""
    with whole(csv) as draft:
        operators.to_csv(draft, index=False)
    lines = table(dict(row) for _, row in operators.astype(str).iterrows())
    write_page(page, f"# Operators of the network\n\n{lines}\n")


def ncnn_has_layer(layer: str) -> bool:
    """Return whether the installed ncnn runtime can create a layer of this type."""
    import ncnn

    return ncnn.create_layer(layer) is not None


def ncnn_layer(node: "NodeProto", constants: Container[str]) -> str:
    """Return the type of the ncnn layer that computes an ONNX node, whether or not ncnn has such a layer.

    Args:
        node: the node.
        constants: names of the values in its graph that are constant.
    """
    if node.domain not in ("", "ai.onnx"):
        return f"{node.domain}::{node.op_type}"
    if node.op_type in ("Conv", "ConvTranspose"):
        attributes = {attribute.name: attribute for attribute in node.attribute}
        group = attributes["group"].i if "group" in attributes else 1
        axes = len(attributes["kernel_shape"].ints) if "kernel_shape" in attributes else 2
        name = "Convolution" if node.op_type == "Conv" else "Deconvolution"
        # ncnn's DepthWise layers are its grouped convolutions, of any number of groups.
        return name + ("DepthWise" if group > 1 else "") + ("" if axes == 2 else f"{axes}D")
    if node.op_type == "Gemm":
        transposes = {attribute.name: attribute.i for attribute in node.attribute}
        return "InnerProduct" if transposes.get("transB", 0) and not transposes.get("transA", 0) else "Gemm"
    if node.op_type == "MatMul" and node.input[1] in constants:
        return "Gemm"
    operator: str = node.op_type
    return _LAYER_NAMES.get(operator, operator)


def _table(model: "ModelProto", source: Path, traced: Sequence[Traced]) -> "DataFrame":
    from pandas import DataFrame

    simplified = _convertible(model, source)
    layers = {_identity(node): layer for node, layer in simplified}
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    counts: Counter[tuple[str, str, str]] = Counter()
    origins: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for node, index in zip(model.graph.node, _match(model, traced), strict=True):
        operator = "" if index is None else traced[index].operator
        way = (operator, node.op_type, layers.get(_identity(node), ""))
        counts[way] += 1
        if operator and index is not None:
            origins[way].add(index)
    exported = {_identity(node) for node in model.graph.node}
    for node, layer in simplified:
        if _identity(node) not in exported:
            counts[_FUSED, node.op_type, layer] += 1
    folded = set(range(len(traced))).difference(*origins.values())
    folded_counts = Counter(traced[index].operator for index in folded if traced[index].operator)
    ways = [(way, len(origins[way]), count) for way, count in counts.most_common()]
    ways += [((operator, "", ""), count, 0) for operator, count in folded_counts.most_common()]
    return DataFrame(
        {
            "torch_operator": operator,
            "torch_count": torch_count,
            "onnx_operator": onnx_operator,
            "opset": opset,
            "onnx_count": onnx_count,
            "ncnn_layer": layer,
            "int8": ("yes" if layer in INT8_LAYERS else "no") if layer else "",
        }
        for (operator, onnx_operator, layer), torch_count, onnx_count in ways
    )


def _identity(node: "NodeProto") -> tuple[str, str]:
    """Return what tells a node apart before and after onnxsim, which may fuse it away or rename its output."""
    return node.op_type, node.name or node.output[0]


def _match(model: "ModelProto", traced: Sequence[Traced]) -> list[int | None]:
    """Return, for each ONNX node, the index of the traced operator that it was made from; None for added constants."""
    makers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, operator in enumerate(traced):
        for made in operator.made:
            makers[operator.scope, made].append(index)
    matched: list[int | None] = []
    for node in model.graph.node:
        # A node is named after the module it comes from (/backbone/stem/stem.0/conv/Conv), and the second call of a
        # module after that (/backbone/layer/relu_1/Relu).
        scope = node.name.rpartition("/")[0]
        candidates = makers[scope, node.op_type] or makers[re.sub(r"_\d+(?=/|$)", "", scope), node.op_type]
        matched.append(candidates.pop(0) if candidates else None)
    return matched


def _convertible(model: "ModelProto", source: Path) -> "list[tuple[NodeProto, str]]":
    """Return the operators that are left after onnxsim, each with its ncnn layer; `InputError` if ncnn lacks one."""
    # onnxsim cannot know operators of other domains, and ncnn has none of them.
    foreign = [node for node in model.graph.node if node.domain not in ("", "ai.onnx")]
    graph = model.graph if foreign else simplify(model, source).graph
    constants = {tensor.name for tensor in graph.initializer}
    constants.update(node.output[0] for node in graph.node if node.op_type == "Constant")
    nodes = [(node, ncnn_layer(node, constants)) for node in foreign or graph.node if node.op_type != "Constant"]
    lacking: dict[str, str] = {}
    for node, layer in nodes:
        if not ncnn_has_layer(layer):
            operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            lacking.setdefault(operator, node.name or node.output[0])
    if lacking:
        named = "; ".join(f"{operator} (first node: {name})" for operator, name in lacking.items())
        raise InputError(
            f"{source}: ncnn has no layer for {named}. Replace the operator in the network, or cut it off if it only "
            "post-processes the heatmaps."
        )
    return nodes


@contextmanager
def traced_operators() -> "Iterator[list[Traced]]":
    """Collect what PyTorch's TorchScript exporter translates while the block runs.

    `_run_symbolic_function` translates one node of the traced graph. It is not public, but the only place where the
    operator of PyTorch and those of ONNX meet.
    """
    make_importable()
    from torch.onnx._internal.torchscript_exporter import utils

    traced: list[Traced] = []
    translate = utils._run_symbolic_function

    def listen(*arguments: Any) -> Any:
        _graph, _block, node, _inputs, _env, _values, new_nodes, *_ = arguments
        before, kind, scope = len(new_nodes), node.kind(), node.scopeName()
        translated = translate(*arguments)
        # A scope is Class::name/Class::name/...; the ONNX node's name begins with /name/name/...
        names = "/".join(part.rpartition("::")[2] for part in scope.split("/"))
        operator = kind.removesuffix("_") if kind.startswith("aten::") else ""
        made = tuple(new.kind().removeprefix("onnx::") for new in new_nodes[before:])
        traced.append(Traced(operator, names, made))
        return translated

    utils._run_symbolic_function = listen  # type: ignore[assignment]
    try:
        yield traced
    finally:
        utils._run_symbolic_function = translate
