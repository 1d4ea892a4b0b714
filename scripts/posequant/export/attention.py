"""Rewriting the attention of vision transformers with tensors of four axes: ncnn has no more."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

_HEADS_FIRST = [2, 0, 3, 1, 4]


def split_heads_in_four_axes(model: "ModelProto") -> int:
    """Rewrite, in place, how queries, keys and values are taken from one product; the output stays the same.

    Transformers reshape the product to (batch, token, 3, head, channel), move the axes to (3, batch, head, token,
    channel) and take one index of the first. Written instead: (batch, token, 3 head, channel), moved to (batch, 3 head,
    token, channel), and a slice of the heads.

    Args:
        model: of constant shapes, as onnxsim leaves it.

    Returns:
        How many products were rewritten.
    """
    graph = model.graph
    constants = _constants(model)
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    outputs = {output.name for output in graph.output}
    rewritten = 0
    for transpose in graph.node:
        if transpose.op_type != "Transpose" or _attribute(transpose, "perm") != _HEADS_FIRST:
            continue
        reshape, gathers = makers.get(transpose.input[0]), users[transpose.output[0]]
        if reshape is None or reshape.op_type != "Reshape" or reshape.input[1] not in constants:
            continue
        private = len(users[reshape.output[0]]) == 1 and not {reshape.output[0], transpose.output[0]} & outputs
        if not private or not all(_takes_one(gather, transpose.output[0], constants) for gather in gathers):
            continue
        shape = [int(size) for size in constants[reshape.input[1]]]
        if len(shape) != 5 or min(shape) < 1:
            continue
        _rewrite(model, reshape, transpose, gathers, shape=shape, constants=constants)
        rewritten += 1
    return rewritten


def _rewrite(
    model: "ModelProto",
    reshape: "NodeProto",
    transpose: "NodeProto",
    gathers: "list[NodeProto]",
    *,
    shape: list[int],
    constants: "dict[str, NDArray[Any]]",
) -> None:
    from onnx import helper

    batch, tokens, parts, heads, channels = shape

    def constant(owner: "NodeProto", role: str, values: list[int]) -> str:
        name = f"{owner.output[0]}_{role}"
        model.graph.initializer.append(helper.make_tensor(name, 7, [len(values)], values))
        return name

    reshape.input[1] = constant(reshape, "shape", [batch, tokens, parts * heads, channels])
    transpose.attribute[0].ints[:] = [0, 2, 1, 3]
    for gather in gathers:
        part = int(constants[gather.input[1]]) % parts
        starts, ends = ([heads * (part + side)] for side in (0, 1))
        sliced = helper.make_node(
            "Slice",
            [
                transpose.output[0],
                constant(gather, "starts", starts),
                constant(gather, "ends", ends),
                constant(gather, "axes", [1]),
            ],
            list(gather.output),
            name=gather.name,
        )
        gather.CopyFrom(sliced)
    # What is known of the shape of the two intermediate tensors is wrong now.
    stale = {reshape.output[0], transpose.output[0]}
    kept = [info for info in model.graph.value_info if info.name not in stale]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def _takes_one(node: "NodeProto", tensor: str, constants: "dict[str, NDArray[Any]]") -> bool:
    """Say whether `node` takes one constant index of the first axis of `tensor`."""
    if node.op_type != "Gather" or node.input[0] != tensor or (_attribute(node, "axis") or 0) != 0:
        return False
    index = constants.get(node.input[1])
    return index is not None and index.ndim == 0


def _constants(model: "ModelProto") -> "dict[str, NDArray[Any]]":
    """Return the integer constants of a network by their names: the shapes and indices among its tensors."""
    from onnx import TensorProto, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors |= {
        node.output[0]: node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    return {
        name: numpy_helper.to_array(tensor)
        for name, tensor in tensors.items()
        if tensor.data_type in (TensorProto.INT64, TensorProto.INT32)
    }


def _attribute(node: "NodeProto", name: str) -> Any:
    from onnx import helper

    values = [helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name]
    return values[0] if values else None
