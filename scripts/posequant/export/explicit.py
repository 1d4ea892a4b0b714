"""Writing out what ONNX lets a network leave open: pnnx does not work it out, and loses it without a word."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from posequant.base.onnx_files import opset_of

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Shapes = dict[str, list[int]]


def write_out(model: "ModelProto") -> int:
    """Write out, in place, what pnnx does not work out by itself; the output stays the same.

    - `Split` into equal parts gets its sizes: pnnx writes a Slice without sizes, on which ncnn crashes. Where nobody
      reads a part, the others are slices: ncnn would take it for an output of the network.
    - `Max` and `Min` of three inputs and more become several of two: pnnx passes over the third.
    - `Resize` to whole multiples by the nearest pixel gets scales and the coordinates that pnnx knows: it takes all
      others for these, or leaves the node. Wherever pixels are counted from, each becomes a block of its copies.

    Args:
        model: of constant shapes, as onnxsim leaves it.

    Returns:
        How many nodes were rewritten.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    }
    rewritten = 0
    for node in list(model.graph.node):
        rewrite = _REWRITES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        rewritten += bool(rewrite and rewrite(model, node, shapes))
    return rewritten


def _split(model: "ModelProto", node: "NodeProto", shapes: Shapes) -> bool:
    from onnx import helper

    graph = model.graph
    said = len(node.input) > 1 or any(attribute.name == "split" for attribute in node.attribute)
    read = {name for other in graph.node for name in other.input} | {output.name for output in graph.output}
    axis = _attribute(node, "axis", 0)
    sizes = [shapes[name][axis] if shapes.get(name) else 0 for name in node.output]
    if (said and read.issuperset(node.output)) or not all(sizes):
        return False
    if not read.issuperset(node.output):
        ends = list(accumulate(sizes))
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for name, size, end in zip(node.output, sizes, ends, strict=True):
            if name in read:
                limits = {"starts": end - size, "ends": end, "axes": axis}
                inputs = [_constant(graph, f"{name}_{role}", [value]) for role, value in limits.items()]
                graph.node.insert(place, helper.make_node("Slice", [node.input[0], *inputs], [name], name=name))
        return True
    if opset_of(model) < 13:
        node.attribute.append(helper.make_attribute("split", sizes))
        return True
    node.input.append(_constant(graph, f"{node.output[0]}_sizes", sizes))
    kept = [attribute for attribute in node.attribute if attribute.name != "num_outputs"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return True


def _in_pairs(model: "ModelProto", node: "NodeProto", _: Shapes) -> bool:
    from onnx import helper

    first, *others, last = node.input
    if len(others) < 1:
        return False
    place = list(model.graph.node).index(node)
    for number, other in enumerate(others):
        pair = f"{node.output[0]}_of_{number + 2}"
        inner = helper.make_node(node.op_type, [first, other], [pair], name=f"{node.name or node.output[0]}_{number}")
        model.graph.node.insert(place + number, inner)
        first = pair
    node.input[:] = [first, last]
    return True


def _nearest(model: "ModelProto", node: "NodeProto", shapes: Shapes) -> bool:
    from onnx import helper

    before, after = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
    sized = len(before) == len(after) > 0 and all((*before, *after))
    if _attribute(node, "mode", b"nearest") != b"nearest" or not sized:
        return False
    known = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", "mode": "nearest"}
    from_left = {name: _attribute(node, name, b"").decode() for name in known} == known
    # From the middle of pixels, a pixel's copies are those that lie over it; rounding never takes another.
    from_middle = _attribute(node, "coordinate_transformation_mode", b"half_pixel") in (
        b"half_pixel",
        b"half_pixel_symmetric",
        b"pytorch_half_pixel",
    ) and _attribute(node, "nearest_mode", b"round_prefer_floor") in (b"round_prefer_floor", b"round_prefer_ceil")
    whole = all(new % old == 0 for old, new in zip(before, after, strict=True))
    other = {attribute.name for attribute in node.attribute} - {*known, "cubic_coeff_a", "exclude_outside"}
    if from_left or not from_middle or not whole or other:
        return False
    scales = [float(new // old) for old, new in zip(before, after, strict=True)]
    node.input[1:] = ["", _constant(model.graph, f"{node.output[0]}_scales", scales)]
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in known.items())
    return True


_REWRITES: dict[str, Callable[["ModelProto", "NodeProto", Shapes], bool]] = {
    "Split": _split,
    "Max": _in_pairs,
    "Min": _in_pairs,
    "Resize": _nearest,
}


def _constant(graph: "GraphProto", name: str, values: Sequence[int] | Sequence[float]) -> str:
    from onnx import TensorProto, helper

    kind = TensorProto.INT64 if isinstance(values[0], int) else TensorProto.FLOAT
    graph.initializer.append(helper.make_tensor(name, kind, [len(values)], values))
    return name


def _attribute(node: "NodeProto", name: str, default: Any) -> Any:
    from onnx import helper

    values = [helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name]
    return values[0] if values else default
