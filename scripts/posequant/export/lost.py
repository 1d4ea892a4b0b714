"""Which operator of an ONNX network pnnx has lost: by what flows through ncnn's network and through ONNX Runtime's."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.onnx_files import load_onnx
from posequant.base.verify import run_onnx
from posequant.export.audit import ncnn_layer
from posequant.ncnn_format.model import Layer, NcnnModel

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Floats = NDArray[np.float32]

# Values of two runtimes that differ by less are the same, in parts of the greatest.
_SAME = 1e-3


def lost_operator(onnx_file: Path, param: Path, bin_: Path, crop: Floats, fault: str) -> str:
    """Return the first operator whose result is nowhere in ncnn's network, as a sentence; empty where none is found.

    A value is known again by its size and its numbers, whatever it is called. An operator that pnnx joined with the
    next one is not lost: what follows is there.

    Args:
        onnx_file: the network, simplified.
        param: what pnnx made of it, the `.param`.
        bin_: its `.bin`.
        crop: float32 (3, H, W).
        fault: what was said of ncnn's network. Where that names a layer, only what comes before it is computed.
    """
    try:
        return _lost_operator(onnx_file, param, bin_, crop, fault)
    except InputError:
        # The fault that is known already says more.
        return ""


def _lost_operator(onnx_file: Path, param: Path, bin_: Path, crop: Floats, fault: str) -> str:
    model = load_onnx(onnx_file, with_weights=True)
    made = _onnx_values(model, crop)
    layers = NcnnModel.read(param, bin_)
    stop = next((place for place, layer in enumerate(layers.layers) if _names(fault, layer)), len(layers.layers))
    found = _ncnn_values(NcnnModel(layers.layers[:stop], layers.weights[:stop]), crop)
    there = {name for name, values in made.items() if any(_same(values, other) for other in found)}
    constants = {tensor.name for tensor in model.graph.initializer}
    there.update(constants, (value.name for value in model.graph.input), [""])
    for node in reversed(model.graph.node):
        if there.intersection(node.output):
            there.update(node.input)
    lost = [node for node in model.graph.node if there.issuperset(node.input) and not there.intersection(node.output)]
    if stop < len(layers.layers):
        # What was not reached yet is missing, too.
        of_the_type = [node for node in lost if ncnn_layer(node, constants) == layers.layers[stop].type]
        lost = of_the_type or lost
    return f" pnnx loses {_described(lost[0])}, or a part of it." if lost else ""


def _names(fault: str, layer: Layer) -> bool:
    return re.search(rf"\blayer {re.escape(layer.name)} ", fault) is not None


def _described(node: "NodeProto") -> str:
    from onnx import helper

    attributes = {
        attribute.name: helper.get_attribute_value(attribute)
        for attribute in node.attribute
        if attribute.type != attribute.TENSOR
    }
    shown = ", ".join(f"{name}={_text(value)}" for name, value in attributes.items())
    return f"the operator {node.op_type} '{node.name or node.output[0]}'{f' ({shown})' if shown else ''}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _onnx_values(model: "ModelProto", crop: Floats) -> dict[str, Floats]:
    """Return what flows through an ONNX network, of float32, by name."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    outputs = {value.name for value in model.graph.output}
    inner = [
        value
        for value in inferred.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in outputs
    ]
    inferred.graph.output.extend(inner)
    names = [output.name for output in inferred.graph.output]
    return dict(zip(names, run_onnx(inferred, crop[np.newaxis]), strict=True))


def _ncnn_values(model: NcnnModel, crop: Floats) -> list[Floats]:
    """Return what flows through an ncnn network, as far as that can be computed."""
    from posequant.networks.ncnn import NcnnNetwork

    tops = [top for layer in model.layers for top in layer.tops]
    network = NcnnNetwork.of(model, "fp32", (crop.shape[0], crop.shape[1], crop.shape[2]))
    return list(_until_fault(network.activations(crop, tops)))


def _until_fault(values: Iterable[Floats]) -> Iterable[Floats]:
    try:
        yield from values
    except InputError:
        return


def _same(one: Floats, other: Floats) -> bool:
    if one.size != other.size:
        return False
    return float(np.abs(one.ravel() - other.ravel()).max()) <= _SAME * float(np.abs(one).max())
