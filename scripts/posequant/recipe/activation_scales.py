"""The step `activations`: how far the INT8 range of each layer's input reaches."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer, Weights
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.ncnn2int8 import quantize_layer
from posequant.quantize.propagation import Visit, propagate
from posequant.quantize.thresholds import aciq_threshold, histogram, kl_thresholds
from posequant.quantize.weights import INT8_LIMIT
from posequant.recipe.draft import Draft, Floats, representable
from posequant.recipe.output_error import OutputError
from posequant.recipe.positions import by_channel, position_weights
from posequant.workflow.settings.recipe import ActivationsStep

# Shares of the largest magnitude at which the range may end, in the order in which they are tried.
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05)
# The search ends after so many shares in a row that are worse than the best.
PATIENCE = 3
# By the network's output the shares are compared on so many crops with the largest magnitudes, and so many of the rest.
LARGEST_CROPS, OTHER_CROPS = 4, 4


def scale_activations(draft: Draft, crops: Sequence[Floats], threads: int, settings: ActivationsStep) -> Draft:
    """Choose the activation scales of all layers. Layers that read copies of one tensor get one scale.

    Args:
        draft: the draft. The methods that search need its weight scales.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time.
        settings: how many of the crops are looked at, and the method: `kl` or `aciq`, as ncnn2table; `absmax`, the
            largest magnitude; `percentile`, below which `share` of the magnitudes other than 0 are; `mse`, by which the
            layer's own output changes least, position by position (see `position_weights`), when it gets what the
            quantized layers before it give; `output`, by which the network's output changes least when this tensor
            alone is quantized. The last two try `CLIPS`. `output` runs the rest of the network for each, so it starts
            from the share that `mse` finds in the float network, and looks at few crops, see `representative`.

    Raises:
        InputError: the input of a layer is zero on all crops.
    """
    crops = crops[: settings.crops]
    match settings.method:
        case "mse":
            scales = _by_layer_output(draft, crops, threads)
        case "output":
            scales = _by_network_output(draft, crops, threads)
        case method:
            scales = _by_distribution(draft, crops, threads, method, settings.share)
    return replace(draft, activation_scales=scales)


def readers_of_tensors(draft: Draft) -> dict[str, list[Layer]]:
    """Return for each layer to quantize, by name, all those that read copies of the same tensor, itself included."""
    sources: dict[str, str] = {}
    for layer in draft.model.layers:
        for top in layer.tops:
            sources[top] = sources[layer.bottoms[0]] if layer.type == "Split" else top
    readers: dict[str, list[Layer]] = {}
    for layer in draft.layers:
        readers.setdefault(sources[layer.bottoms[0]], []).append(layer)
    return {layer.name: group for group in readers.values() for layer in group}


def descend(loss: Callable[[float], float]) -> float:
    """Return which of `CLIPS` has the least loss, trying them in their order and ending after `PATIENCE` worse ones.

    Args:
        loss: of a share.
    """
    best, least, worse = CLIPS[0], math.inf, 0
    for clip in CLIPS:
        found = loss(clip)
        if found < least:
            best, least, worse = clip, found, 0
        else:
            worse += 1
            if worse == PATIENCE:
                break
    return best


def climb(loss: Callable[[float], float], start: float) -> float:
    """Return which of `CLIPS` has less loss than both of its neighbours, going from `start` by way of ever better ones.

    Args:
        loss: of a share.
        start: one of `CLIPS`.
    """
    place, least = CLIPS.index(start), loss(start)
    for step in (1, -1):
        moved = False
        while 0 <= place + step < len(CLIPS) and (found := loss(CLIPS[place + step])) < least:
            place, least, moved = place + step, found, True
        if moved:
            break
    return CLIPS[place]


def representative(magnitudes: Sequence[float]) -> dict[int, float]:
    """Return a few crops that stand for all: their places, and how many crops each stands for.

    What clips a tensor harms the crops with its largest magnitudes, and how much differs from crop to crop: these are
    all looked at. What is left, mostly rounding, is much the same for the others: a few stand for them.

    Args:
        magnitudes: the largest magnitude of the tensor on each crop.
    """
    order = sorted(range(len(magnitudes)), key=lambda place: (-magnitudes[place], place))
    largest, rest = order[:LARGEST_CROPS], order[LARGEST_CROPS:]
    count = min(OTHER_CROPS, len(rest))
    others = [rest[(2 * number + 1) * len(rest) // (2 * count)] for number in range(count)]
    return dict.fromkeys(largest, 1.0) | dict.fromkeys(others, len(rest) / count if count else 0.0)


def _by_distribution(
    draft: Draft, crops: Sequence[Floats], threads: int, method: str, share: float
) -> dict[str, np.float32]:
    readers = readers_of_tensors(draft)
    thresholds: dict[str, np.floating] = {}
    histograms: dict[str, tuple[NDArray[np.int64], np.float32]] = {}

    def measure(visit: Visit) -> None:
        name, absmax = visit.layer.name, _largest(visit)
        if name != readers[name][0].name:
            return
        if method == "absmax":
            thresholds[name] = absmax
        elif method == "aciq":
            thresholds[name] = aciq_threshold(np.atleast_1d(absmax), visit.inputs[0].size)[0]
        else:
            counts = np.sum(visit.each(lambda values: histogram(values, absmax), visit.inputs), axis=0)
            if method == "kl":
                histograms[name] = counts, absmax
            else:
                thresholds[name] = percentile_threshold(counts, absmax, share)

    propagate(draft.reference, crops, measure, draft.names, threads=threads, title="activations", float_only=True)
    if histograms:
        counts, absmax = (np.array(values) for values in zip(*histograms.values(), strict=True))
        thresholds |= zip(histograms, kl_thresholds(counts, absmax), strict=True)
    return {layer.name: _scale(thresholds[name]) for name in thresholds for layer in readers[name]}


def percentile_threshold(counts: NDArray[np.int64], absmax: np.float32, share: float) -> np.float32:
    """Return the upper end of the first bin up to which at least `share` of the counted magnitudes lie.

    Args:
        counts: a histogram of magnitudes in equal bins from 0 to `absmax`, int64 (bins,).
        absmax: where it ends.
        share: 0 to 1.
    """
    cumulated = np.cumsum(counts)
    bins = int(np.searchsorted(cumulated, share * cumulated[-1])) + 1
    return np.float32(absmax * min(bins, len(counts)) / len(counts))


def _by_layer_output(draft: Draft, crops: Sequence[Floats], threads: int) -> dict[str, np.float32]:
    readers, scales = readers_of_tensors(draft), dict[str, np.float32]()

    def choose(visit: Visit) -> tuple[Layer, Weights]:
        if visit.layer.name not in scales:
            group = readers[visit.layer.name]
            clip = descend(_layer_loss(draft, group, visit, visit.reached, dict.fromkeys(range(len(crops)), 1.0)))
            scale = _scale(_largest(visit) * np.float32(clip))
            scales.update({layer.name: scale for layer in group})
        return _quantized(draft, visit.layer, scales[visit.layer.name])

    propagate(draft.reference, crops, choose, draft.names, threads=threads, title="activations")
    return scales


def _layer_loss(
    draft: Draft, group: Sequence[Layer], visit: Visit, given: Sequence[Floats], counts: Mapping[int, float]
) -> Callable[[float], float]:
    """Return the function from a share to the error of the layers' own outputs, counted as in `position_weights`.

    Args:
        draft: the draft, with weight scales.
        group: all layers that read the tensor.
        visit: the first of them.
        given: the tensor that the quantized layers get, for each crop.
        counts: which crops to look at, by their places, and how often each counts.
    """
    inputs = [[visit.inputs[place]] for place in counts]
    floats = []
    for layer in group:
        if layer.name == visit.layer.name:
            floats.append([visit.outputs[place] for place in counts])
            continue
        network = LayerNetwork(*draft.reference.named(layer.name))
        floats.append([outputs[0] for outputs in visit.each(network.run, inputs)])
    shares = [position_weights(outputs) for outputs in floats]

    def loss(clip: float) -> float:
        total = 0.0
        for layer, outputs, weights in zip(group, floats, shares, strict=True):
            network = LayerNetwork(*_quantized(draft, layer, _scale(_largest(visit) * np.float32(clip))))

            def error(item: tuple[int, Floats, Floats], network: LayerNetwork = network) -> float:
                place, wanted, weight = item
                difference = by_channel(network.run([given[place]])[0] - wanted)
                return counts[place] * float((np.square(difference).sum(axis=0) * weight).sum(dtype=np.float64))

            total += sum(visit.each(error, zip(counts, outputs, weights, strict=True)))
        return total

    return loss


def _by_network_output(draft: Draft, crops: Sequence[Floats], threads: int) -> dict[str, np.float32]:
    readers, scales = readers_of_tensors(draft), dict[str, np.float32]()
    error = OutputError(draft.reference, crops)

    def choose(visit: Visit) -> None:
        if visit.layer.name in scales:
            return
        group, largest = readers[visit.layer.name], _largest(visit)
        counts = representative([float(np.abs(values).max()) for values in visit.inputs])

        def loss(clip: float) -> float:
            scale = _scale(largest * np.float32(clip))
            layers = {layer.tops[0]: LayerNetwork(*_quantized(draft, layer, scale)) for layer in group}
            return float(error(visit, layers, list(counts)) @ list(counts.values()))

        clip = climb(loss, descend(_layer_loss(draft, group, visit, visit.inputs, counts)))
        scales.update({layer.name: _scale(largest * np.float32(clip)) for layer in group})

    propagate(draft.reference, crops, choose, draft.names, threads=threads, title="activations", float_only=True)
    return scales


def _largest(visit: Visit) -> np.float32:
    largest = np.float32(max(np.abs(values).max() for values in visit.inputs))
    if largest == 0:
        raise InputError(f"the input of layer {visit.layer.name} is zero on every crop. Keep the layer in float.")
    return largest


def _scale(threshold: np.floating) -> np.float32:
    scale: np.float32 = representable(np.atleast_1d(np.float32(INT8_LIMIT) / np.float32(threshold)))[0]
    return scale


def _quantized(draft: Draft, layer: Layer, scale: np.float32) -> tuple[Layer, Weights]:
    return quantize_layer(layer, draft.model.named(layer.name)[1], draft.weight_scales[layer.name], scale)
