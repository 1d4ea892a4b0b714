"""Cutting what a pose network needs out of an ncnn network, and naming its ends as pnnx does: `in0`, `out0`, ..."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer, NcnnModel


def input_of(layers: Sequence[Layer], name: str | None) -> str:
    """Return the blob that takes the crop.

    Args:
        layers: the network.
        name: what the user calls it; None for the network's only input.

    Raises:
        InputError: there is no such blob, or no single input.
    """
    inputs = [top for layer in layers if layer.type == "Input" for top in layer.tops]
    if name is None:
        if len(inputs) != 1:
            raise InputError(f"has the inputs {inputs}. Name the blob that takes the crop by the key 'input'.")
        return inputs[0]
    if name not in _blobs(layers):
        raise InputError(f"has no blob '{name}', which the key 'input' names. Its inputs are {inputs}.")
    return name


def outputs_of(layers: Sequence[Layer], names: Sequence[str] | None, wanted: int) -> list[str]:
    """Return the blobs that are decoded.

    Args:
        layers: the network.
        names: what the user calls them; None for those that no layer reads. Of two, pnnx's are in order.
        wanted: how many the codec decodes.

    Raises:
        InputError: there is no such blob, or they are more or fewer.
    """
    ends = ends_of(layers)
    found = ends if names is None else list(names)
    if missing := [name for name in found if name not in _blobs(layers)]:
        raise InputError(f"has no blob '{missing[0]}', which the key 'outputs' names. No layer reads {ends}.")
    if len(found) != wanted:
        raise InputError(
            f"{'ends in' if names is None else 'is to give'} the blobs {found}, where the codec decodes {wanted}. Name "
            f"{'it' if wanted == 1 else 'them in their order'} by the key 'outputs', or choose another codec."
        )
    return found


def ends_of(layers: Sequence[Layer]) -> list[str]:
    """Return the blobs that no layer reads; of two, pnnx's are in order."""
    read = {blob for layer in layers for blob in layer.bottoms}
    # Converters leave copies that nothing reads; pnnx calls one so where it is an output.
    ends = [
        top
        for layer in layers
        for top in layer.tops
        if top not in read and (layer.type != "Split" or re.fullmatch(r"out\d+", top))
    ]
    return sorted(ends, key=lambda name: (len(name), name))


def cut(model: NcnnModel, source: str, outputs: Sequence[str]) -> NcnnModel:
    """Return the part of a network between a blob and others, with an Input layer for that blob.

    Args:
        model: the network.
        source: the blob that takes the crop.
        outputs: the blobs to compute from it.

    Raises:
        InputError: the outputs do not come from that blob, or need another input as well.
    """
    if source in outputs:
        raise InputError(f"is to give '{source}', which is its input. Correct the keys 'input' and 'outputs'.")
    needed, kept, made = set(outputs), NcnnModel([], []), False
    for layer, weights in zip(reversed(model.layers), reversed(model.weights), strict=True):
        if source in layer.tops:
            made = source in needed
            needed.discard(source)
            if not needed.isdisjoint(layer.tops):
                raise InputError(f"makes '{source}' in layer {layer.name} with other blobs. Name that which it reads.")
        if needed.isdisjoint(layer.tops):
            continue
        if layer.type == "Input":
            raise InputError(f"needs the input '{layer.tops[0]}' beside '{source}'. A pose network has one input.")
        needed.update(layer.bottoms)
        kept.layers.insert(0, layer)
        kept.weights.insert(0, weights)
    if not made:
        raise InputError(f"does not compute {list(outputs)} from '{source}'. Correct the keys 'input' and 'outputs'.")
    names = {layer.name for layer in kept.layers}
    entry = Layer("Input", _unlike("in0", names), (), (source,), {})
    return NcnnModel([entry, *kept.layers], [{}, *kept.weights])


def named_as_pnnx_does(part: NcnnModel, source: str, outputs: Sequence[str]) -> NcnnModel:
    """Return what was `cut` with the input called `in0` and the outputs `out0`, `out1`, ...

    Layers keep their names. Of Splits only those copies stay that are read.

    Args:
        part: the part of a network.
        source: the blob that takes the crop.
        outputs: the blobs to compute from it.

    Raises:
        InputError: another layer makes a blob that nothing reads, which would be an output.
    """
    part, outputs = _without_unread_copies(part, outputs)
    return _renamed(_with_copies(part, outputs), source, outputs)


def _without_unread_copies(model: NcnnModel, outputs: Sequence[str]) -> tuple[NcnnModel, list[str]]:
    """Return a network without copies that nothing reads, nor Splits that make but one; and its outputs."""
    read = {blob for layer in model.layers for blob in layer.bottoms} | set(outputs)
    layers, weights, same = [], [], dict[str, str]()
    for layer, values in zip(model.layers, model.weights, strict=True):
        bottoms = tuple(same.get(blob, blob) for blob in layer.bottoms)
        tops = layer.tops
        if layer.type == "Split":
            tops = tuple(top for top in layer.tops if top in read)
        elif unread := [top for top in tops if top not in read]:
            raise InputError(
                f"layer {layer.name} ({layer.type}) makes the blob '{unread[0]}', which nothing reads. Take the "
                "other out by a Crop layer."
            )
        if layer.type == "Split" and len(tops) == 1:
            same[tops[0]] = bottoms[0]
            continue
        layers.append(replace(layer, bottoms=bottoms, tops=tops))
        weights.append(values)
    return NcnnModel(layers, weights), [same.get(blob, blob) for blob in outputs]


def _with_copies(model: NcnnModel, outputs: Sequence[str]) -> NcnnModel:
    """Return a network whose outputs nothing reads: where a layer does, it gets a copy."""
    readers = {blob for layer in model.layers for blob in layer.bottoms if blob in outputs}
    if not readers:
        return model
    blobs, names = _blobs(model.layers), {layer.name for layer in model.layers}
    original = {blob: _unlike(f"{blob}_original", blobs) for blob in readers}
    copy = {blob: _unlike(f"{blob}_copy", blobs) for blob in readers}
    layers, weights = [], []
    for layer, values in zip(model.layers, model.weights, strict=True):
        bottoms = tuple(copy.get(blob, blob) for blob in layer.bottoms)
        layers.append(replace(layer, bottoms=bottoms, tops=tuple(original.get(top, top) for top in layer.tops)))
        weights.append(values)
        for top in readers.intersection(layer.tops):
            name = _unlike(f"split_{top}", names)
            layers.append(Layer("Split", name, (original[top],), (top, copy[top]), {}))
            weights.append({})
    return NcnnModel(layers, weights)


def _renamed(model: NcnnModel, source: str, outputs: Sequence[str]) -> NcnnModel:
    names = {source: "in0", **{name: f"out{place}" for place, name in enumerate(outputs)}}
    blobs = _blobs(model.layers)
    for blob in sorted(set(names.values()) & (blobs - names.keys())):
        names[blob] = _unlike(f"{blob}_inner", blobs)
    layers = [
        replace(
            layer,
            bottoms=tuple(names.get(blob, blob) for blob in layer.bottoms),
            tops=tuple(names.get(blob, blob) for blob in layer.tops),
        )
        for layer in model.layers
    ]
    return NcnnModel(layers, model.weights)


def _blobs(layers: Sequence[Layer]) -> set[str]:
    return {top for layer in layers for top in layer.tops}


def _unlike(name: str, taken: Collection[str]) -> str:
    """Return a name that is not taken yet."""
    while name in taken:
        name += "_"
    return name
