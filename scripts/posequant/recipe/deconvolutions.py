"""The step `split-deconvolutions`: a deconvolution becomes convolutions, which ncnn computes in INT8.

A deconvolution of stride s is s * s convolutions of stride 1, one for each phase, whose outputs are interleaved: every
output place of one phase is reached by the same part of the kernel (Shi and others, Is the deconvolution layer the same
as a convolutional layer?, 2016). ncnn interleaves by a PixelShuffle of mode 1, which takes the phases one after the
other (src/layer/pixelshuffle.cpp); where a deconvolution's output begins and ends is in src/layer/deconvolution.cpp.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from posequant.base.signal import Powers
from posequant.ncnn_format.model import (
    ACTIVATION,
    ACTIVATION_VALUES,
    Layer,
    NcnnModel,
    Weights,
    array_key,
    weighted_inputs,
)
from posequant.ncnn_format.window import SAME, Window
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import LayerRecord, describe_layers
from posequant.recipe.draft import Draft, Floats
from posequant.workflow.settings.recipe import SplitDeconvolutionsStep

# Of a rewritten layer's output to the deconvolution's, in float32: 130 dB and more were measured.
LEAST_SQNR_DB = 100.0


@dataclass(frozen=True)
class Phase:
    """Along one axis, the convolution that makes every s-th place of a deconvolution's output.

    Attributes:
        taps: which of the deconvolution's weights it has, in its own order.
        before: zeros before its input.
        after: zeros after its input.
    """

    taps: list[int]
    before: int
    after: int


class _InexactError(Exception):
    """A deconvolution that cannot be split; the message says why."""


def split_deconvolutions(
    draft: Draft, crops: Sequence[Floats], threads: int, settings: SplitDeconvolutionsStep
) -> Draft:
    """Write each deconvolution of a draft's network as convolutions. The network stays the same function.

    Prints what it bought, and which deconvolutions stay because they cannot be split exactly.

    Args:
        draft: the draft, before its scales are chosen.
        crops: the first is run through both networks, to compare them; float32 (3, H, W).
        threads: not used.
        settings: whether depthwise deconvolutions are split, too.

    Raises:
        AssertionError: an output of a rewritten layer is not that of the deconvolution, in float32.
    """
    old, crop = draft.reference, crops[0]
    wanted = [
        layer
        for layer in old.layers
        if layer.type == "Deconvolution" or (settings.depthwise and layer.type == "DeconvolutionDepthWise")
    ]
    if not wanted:
        return draft
    network = NcnnNetwork.of(old, "fp32", crop.shape)
    inputs = network.activations(crop, [layer.bottoms[0] for layer in wanted])
    shapes = {layer.name: values.shape for layer, values in zip(wanted, inputs, strict=True)}
    reference, left = split(old, shapes)
    for name, reason in left.items():
        print(f"notice: deconvolution {name} stays as it is: {reason}", file=sys.stderr)
    done = [layer for layer in wanted if layer.name not in left]
    if not done:
        return draft
    rewritten = NcnnNetwork.of(reference, "fp32", crop.shape)
    _require_equal(network, rewritten, done, crop)
    draft = replace(draft, reference=reference, model=split(draft.model, shapes)[0])
    before, after = _shares_in_int8(draft, describe_layers(old, network), describe_layers(reference, rewritten))
    print(
        f"split-deconvolutions: {len(done)} deconvolutions are convolutions now. Work that can be in INT8: "
        f"{before:.1%} before, {after:.1%} now",
        file=sys.stderr,
    )
    return draft


def split(model: NcnnModel, shapes: Mapping[str, tuple[int, ...]]) -> tuple[NcnnModel, dict[str, str]]:
    """Return a model with deconvolutions as convolutions, and why others stay, by their names.

    Args:
        model: the float model.
        shapes: for each deconvolution to split, by name, the shape (C, H, W) of its input.
    """
    layers: list[Layer] = []
    weights: list[Weights] = []
    left: dict[str, str] = {}
    for layer, values in zip(model.layers, model.weights, strict=True):
        if layer.name in shapes:
            try:
                phases = phases_of(layer, shapes[layer.name])
            except _InexactError as reason:
                left[layer.name] = str(reason)
            else:
                _add_phases(layers, weights, (layer, values), phases)
                continue
        layers.append(layer)
        weights.append(values)
    return NcnnModel(layers, weights), left


def phases_of(layer: Layer, shape: tuple[int, ...]) -> tuple[list[Phase], list[Phase]]:
    """Return the phases of a deconvolution: from top to bottom and from left to right.

    Args:
        layer: a `Deconvolution` or `DeconvolutionDepthWise`.
        shape: (C, H, W) of its input.

    Raises:
        _InexactError: it cannot be split.
    """
    inputs = weighted_inputs(layer)
    if inputs is None:
        raise _InexactError("its weights are an input.")
    if layer.integer(7, 1) not in (1, inputs) or layer.integer(7, 1) not in (1, layer.integer(0)):
        raise _InexactError("it has groups, and ncnn computes convolutions in groups wrongly in INT8.")
    window = Window.of(layer)
    kernel, stride = window.kernel, window.stride
    if window.dilation != (1, 1):
        raise _InexactError(f"its kernel is dilated by {window.dilation[0]}x{window.dilation[1]}.")
    if stride[0] != stride[1]:
        raise _InexactError(f"its strides are {stride[0]}x{stride[1]}, and ncnn's PixelShuffle knows only equal ones.")
    longer = layer.integer(19, layer.integer(18)), layer.integer(18)
    uncut = [
        (size - 1) * step + taps + more
        for size, step, taps, more in zip(shape[1:], stride, kernel, longer, strict=True)
    ]
    rows, columns = (
        phases_along(size, taps, step, whole, cut)
        for size, taps, step, whole, cut in zip(shape[1:], kernel, stride, uncut, _cuts(layer, uncut), strict=True)
    )
    return rows, columns


def phases_along(size: int, kernel: int, stride: int, uncut: int, cut: tuple[int, int]) -> list[Phase]:
    """Return the phases of a deconvolution along one axis.

    Input i and weight k meet at place i * stride + k of the output before it is cut, so the places of phase r of the
    cut output are those with k = r + cut[0] (mod stride). The larger k, the earlier the input: a phase's weights are in
    reverse order.

    Args:
        size: of the input.
        kernel: number of weights.
        stride: the stride.
        uncut: size of the output before it is cut.
        cut: how much is cut off it, before and after.

    Raises:
        _InexactError: a phase has no weights, is longer than another, or would leave out part of its input.
    """
    output = uncut - sum(cut)
    if output % stride:
        raise _InexactError(f"its output has {output} rows or columns, no multiple of its stride of {stride}.")
    phases = []
    for number in range(stride):
        shift, first = divmod(number + cut[0], stride)
        taps = list(range(first, kernel, stride))[::-1]
        if not taps:
            raise _InexactError(f"its kernel of {kernel} is smaller than its stride of {stride}.")
        phases.append(Phase(taps, before=len(taps) - 1 - shift, after=output // stride - size + shift))
        if min(phases[-1].before, phases[-1].after) < 0:
            raise _InexactError(f"its padding of {cut[0]} and {cut[1]} leaves out part of its input.")
    return phases


def _cuts(layer: Layer, uncut: Sequence[int]) -> list[tuple[int, int]]:
    """Return how much ncnn cuts off a deconvolution's output: at top and bottom, and at left and right."""
    left, right, top, bottom = Window.of(layer).pads
    pads = [(top, bottom), (left, right)]
    wanted = [layer.integer(21, layer.integer(20)), layer.integer(20)]
    if any(pad > 0 for pair in pads for pad in pair):
        if any(pad < 0 for pair in pads for pad in pair):
            raise _InexactError("its padding is given in part.")
        return pads
    if min(wanted) <= 0:
        return [(0, 0), (0, 0)]
    surplus = [has - size for has, size in zip(uncut, wanted, strict=True)]
    for mark, smaller_first in SAME.items():
        if any(mark in pair for pair in pads):
            if min(surplus) < 0:
                raise _InexactError("its output is larger than what its kernel reaches.")
            halves = [(size // 2, size - size // 2) for size in surplus]
            return halves if smaller_first else [pair[::-1] for pair in halves]
    raise _InexactError("its output has a size, but its padding does not say what to cut.")


def _add_phases(
    layers: list[Layer],
    weights: list[Weights],
    deconvolution: tuple[Layer, Weights],
    phases: tuple[list[Phase], list[Phase]],
) -> None:
    """Append the layers that a deconvolution becomes, with their weights."""
    layer, values = deconvolution
    stride = len(phases[0])
    marks = [f"{layer.name}_phase_{row}_{column}" for row, column in product(range(stride), repeat=2)]
    alone = len(marks) == 1
    bottoms = list(layer.bottoms) if alone else [f"{mark}_in" for mark in marks]
    tops = list(layer.tops) if alone else marks
    if not alone:
        _copy(layers, weights, layer.bottoms[0], bottoms, f"{layer.name}_split")
    for mark, bottom, top, places in zip(marks, bottoms, tops, product(*phases), strict=True):
        line, of_phase = _convolution(layer, values, *places)
        layers.append(replace(line, name=mark, bottoms=(bottom,), tops=(top,)))
        weights.append(of_phase)
    if not alone:
        together = f"{layer.name}_concat"
        layers.append(Layer("Concat", together, tuple(tops), (together,), {0: "0"}))
        layers.append(Layer("PixelShuffle", f"{layer.name}_shuffle", (together,), layer.tops, {0: f"{stride}", 1: "1"}))
        weights.extend([{}, {}])


def _copy(layers: list[Layer], weights: list[Weights], blob: str, copies: Sequence[str], name: str) -> None:
    """Copy a blob: by the Split that makes it, where one does, for ncnn hands on INT8 through a single Split only."""
    for place, layer in enumerate(layers):
        if layer.type == "Split" and blob in layer.tops:
            others = [top for top in layer.tops if top != blob]
            layers[place] = replace(layer, tops=(*others, *copies))
            return
    layers.append(Layer("Split", name, (blob,), tuple(copies), {}))
    weights.append({})


def _convolution(layer: Layer, weights: Weights, rows: Phase, columns: Phase) -> tuple[Layer, Weights]:
    """Return the convolution of one phase, with the deconvolution's bias and activation."""
    outputs, group = layer.integer(0), layer.integer(7, 1)
    kernel = weights["weight"].reshape(outputs, -1, *Window.of(layer).kernel)
    part = np.ascontiguousarray(kernel[:, :, rows.taps][:, :, :, columns.taps]).ravel()
    params = {
        **{0: outputs, 1: len(columns.taps), 11: len(rows.taps), 5: layer.integer(5), 6: part.size},
        **{4: columns.before, 14: rows.before, 15: columns.after, 16: rows.after},
        **({7: group} if group > 1 else {}),
    }
    activation = {key: text for key, text in layer.params.items() if key in (ACTIVATION, array_key(ACTIVATION_VALUES))}
    type_ = "ConvolutionDepthWise" if group > 1 else "Convolution"
    line = replace(layer, type=type_, params={key: str(value) for key, value in params.items()} | activation)
    return line, {**weights, "weight": part}


def _require_equal(old: NcnnNetwork, new: NcnnNetwork, layers: Sequence[Layer], crop: Floats) -> None:
    """Compare what two networks make of a crop, layer by layer."""
    tops = [layer.tops[0] for layer in layers]
    for layer, one, other in zip(layers, old.activations(crop, tops), new.activations(crop, tops), strict=True):
        if one.shape != other.shape:
            raise AssertionError(f"layer {layer.name}: its convolutions give {other.shape} in place of {one.shape}")
        sqnr_db = Powers.of(one, other).sqnr_db
        if sqnr_db is not None and sqnr_db < LEAST_SQNR_DB:
            raise AssertionError(f"layer {layer.name}: its convolutions are {sqnr_db:.1f} dB from the deconvolution")


def _shares_in_int8(draft: Draft, old: Sequence[LayerRecord], new: Sequence[LayerRecord]) -> tuple[float, float]:
    """Return the shares of the work that can be in INT8, in the old network and in the draft's."""
    names = {layer.name for layer in draft.in_int8}
    before, after = (
        sum(record.macs for record in records if record.name in names) / sum(record.macs for record in records)
        for records in (old, new)
    )
    return before, after
