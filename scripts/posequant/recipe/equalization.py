"""The step `equalize`: channels that share one activation scale are brought to like ranges, exactly in float."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from posequant.ncnn_format.model import Layer, NcnnModel, Weights, weighted_inputs
from posequant.quantize.propagation import Visit, propagate
from posequant.recipe.draft import Draft, Floats, with_weights
from posequant.workflow.settings.recipe import EqualizeStep

# Layers of which a scaled input channel gives the output channel scaled alike; what they do is linear, or a maximum.
_HOMOGENEOUS = {"Split", "ReLU", "Interp", "Pooling", "Dropout", "Noop"}
_WEIGHTED = {"Convolution", "ConvolutionDepthWise", "DeconvolutionDepthWise"}
# Fused activations (parameter 9) of which this holds for positive factors: none, ReLU, leaky ReLU.
_HOMOGENEOUS_ACTIVATIONS = {0, 1, 2}
# No channel is scaled by more than this.
MOST = np.float32(32)


def equalize(draft: Draft, crops: Sequence[Floats], threads: int, settings: EqualizeStep) -> Draft:
    """Scale the channels of tensors up where they are small, and the weights that read them down.

    A channel whose root mean square is r where the largest of its tensor is R gets the factor (R / r) ** strength. The
    float network stays the same function. Tensors that meet in a sum, as along a residual connection, are scaled alike.
    Between two layers this is the equalization of Nagel and others (Data-Free Quantization through Weight Equalization
    and Bias Correction, 2019, section 4.1); as ncnn has a scale for each output channel of weights, but one for a whole
    input, it is activations that need it, as in SmoothQuant (Xiao and others, 2023), whose alpha `strength` is.

    Args:
        draft: the draft, before its scales are chosen.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time.
        settings: `strength`, and how many of the crops are looked at.
    """
    groups = scalable_blobs(draft.model.layers)
    power: dict[str, Floats] = {}

    def measure(visit: Visit) -> None:
        group = groups.get(visit.layer.bottoms[0])
        if group is not None:
            squares = visit.each(lambda values: np.square(values).mean(axis=(1, 2)), visit.inputs)
            power[group] = np.maximum(power.get(group, np.float32(0)), np.mean(squares, axis=0))

    crops = crops[: settings.crops]
    propagate(
        draft.reference, crops, measure, draft.names, threads=threads, title="ranges of channels", float_only=True
    )
    factors = {group: channel_factors(np.sqrt(found), settings.strength) for group, found in power.items()}
    model = scaled(draft.reference, {blob: factors[group] for blob, group in groups.items() if group in factors})
    return replace(draft, reference=model, model=model)


def channel_factors(ranges: Floats, strength: float) -> Floats:
    """Return the factor of each channel of a tensor, from 1 to `MOST`: (largest range / range) ** strength."""
    least = np.float32(max(float(ranges.max()), 1e-30) * 1e-6)
    factors: Floats = np.minimum((ranges.max() / np.maximum(ranges, least)) ** np.float32(strength), MOST)
    return np.maximum(factors, 1).astype(np.float32)


def scalable_blobs(layers: Sequence[Layer]) -> dict[str, str]:
    """Return the blobs whose channels may be scaled, each with the name of its group; those of one are scaled alike.

    Not among them are the network's input and outputs, and what a layer reads or makes that is not homogeneous.
    """
    groups = _Groups()
    read = {blob for layer in layers for blob in layer.bottoms}
    for layer in layers:
        if layer.type in _HOMOGENEOUS or _is_sum(layer):
            groups.join((*layer.bottoms, *layer.tops))
        elif not _has_scalable_weights(layer):
            groups.fix((*layer.bottoms, *layer.tops))
        elif layer.integer(9) not in _HOMOGENEOUS_ACTIVATIONS:
            groups.fix(layer.tops)
        groups.fix(blob for blob in layer.tops if blob not in read)
    return {top: groups.find(top) for layer in layers for top in layer.tops if not groups.is_fixed(top)}


class _Groups:
    """Blobs that belong together, by union and find; some groups are fixed."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._fixed: set[str] = set()

    def find(self, blob: str) -> str:
        parent = self._parent.setdefault(blob, blob)
        if parent != blob:
            self._parent[blob] = self.find(parent)
        return self._parent[blob]

    def join(self, blobs: Iterable[str]) -> None:
        first, *others = [self.find(blob) for blob in blobs]
        for other in others:
            self._parent[other] = first
            if other in self._fixed:
                self._fixed.add(first)

    def fix(self, blobs: Iterable[str]) -> None:
        self._fixed.update([self.find(blob) for blob in blobs])

    def is_fixed(self, blob: str) -> bool:
        return self.find(blob) in self._fixed


def _is_sum(layer: Layer) -> bool:
    return layer.type == "BinaryOp" and layer.integer(0) == 0 and len(layer.bottoms) == 2


def _has_scalable_weights(layer: Layer) -> bool:
    inputs = weighted_inputs(layer)
    return layer.type in _WEIGHTED and inputs is not None and layer.integer(7, 1) in (1, inputs)


def scaled(model: NcnnModel, factors: Mapping[str, Floats]) -> NcnnModel:
    """Return a model whose channels are multiplied by factors on their way, with the same outputs.

    Args:
        model: the float model.
        factors: for each blob to scale, by name, float32 (C,): all blobs of a group of `scalable_blobs` alike.
    """
    changed: dict[str, Weights] = {}
    for layer, weights in zip(model.layers, model.weights, strict=True):
        if not _has_scalable_weights(layer):
            continue
        before, after = factors.get(layer.bottoms[0]), factors.get(layer.tops[0])
        weight = weights["weight"].astype(np.float32).reshape(layer.integer(0), -1)
        if before is not None:
            # A depthwise row belongs to one input channel; in a row of others the channels stand one after the other.
            dense = layer.type == "Convolution"
            weight = weight / (np.repeat(before, weight.shape[1] // len(before)) if dense else before[:, np.newaxis])
        new = dict(weights)
        if after is not None:
            weight = weight * after[:, np.newaxis]
            if "bias" in weights:
                new["bias"] = (weights["bias"] * after).astype(np.float32)
        changed[layer.name] = {**new, "weight": weight.astype(np.float32).ravel()}
    return with_weights(model, changed)
