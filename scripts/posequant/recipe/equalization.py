"""The step `equalize`: channels that share one activation scale are brought to like ranges, exactly in float."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from posequant.ncnn_format.model import (
    ACTIVATION,
    ACTIVATION_VALUES,
    Layer,
    NcnnModel,
    Weights,
    is_sum,
    weighted_inputs,
)
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.propagation import Visit, propagate
from posequant.recipe.draft import Draft, Floats, with_weights
from posequant.workflow.settings.recipe import EqualizeStep

# Layers that put values elsewhere and leave them as they are.
_MOVING = {"Split", "Slice", "Concat", "Reshape", "Permute", "ShuffleChannel", "PixelShuffle", "Flatten", "Crop"}
# Layers of which a scaled input channel gives the same output channel, scaled alike: linear in it, or a maximum.
_HOMOGENEOUS = {"ReLU", "PReLU", "Interp", "Pooling", "Dropout", "Noop"}
_WEIGHTED = {"Convolution", "ConvolutionDepthWise", "DeconvolutionDepthWise"}
# Fused activations of which this holds for positive factors: none, ReLU, leaky ReLU.
_HOMOGENEOUS_ACTIVATIONS = {0, 1, 2}
_CLIP = 3
# No channel is scaled by more than this, and by more than that where only depthwise layers read it: their weights have
# a scale for each channel.
MOST, MOST_DEPTHWISE = np.float32(32), np.float32(1024)
_TINY = 1e-30
# A channel behind a clip is scaled so far that on the calibration crops it reaches this share of the clip.
HEADROOM = 0.7

Integers = NDArray[np.int64]


def equalize(draft: Draft, crops: Sequence[Floats], threads: int, settings: EqualizeStep) -> Draft:
    """Scale the channels of tensors up where they are small, and the weights that read them down.

    A channel that reaches r where the largest of its tensor reaches R gets the factor (R / r) ** strength; where only
    depthwise layers read it, R / r, as their weights have a scale for each channel. The float network stays the same
    function. Channels that meet in a sum, as along a residual connection, are scaled alike; they are followed through
    splits, concatenations and shuffles. Behind a fused clip, as of a ReLU6, the clip stays where it is: a channel is
    scaled up as long as it reaches no more than the share `HEADROOM` of the clip on the calibration crops, so that it
    meets the clip on others hardly ever.

    Between two layers this is the equalization of Nagel and others (Data-Free Quantization through Weight Equalization
    and Bias Correction, 2019, section 4.1); as ncnn has a scale for each output channel of weights, but one for a whole
    input, it is activations that need it, as in SmoothQuant (Xiao and others, 2023), whose alpha `strength` is.

    Args:
        draft: the draft, before its scales are chosen.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time.
        settings: `strength`, and how many of the crops are looked at.
    """
    crops = crops[: settings.crops]
    channels = Channels.of(draft.reference, crops[0])
    reach: dict[str, Floats] = {}

    def measure(visit: Visit) -> None:
        blob = visit.layer.bottoms[0]
        if blob in channels.classes:
            reach[blob] = np.max(visit.each(lambda values: np.abs(values).max(axis=(1, 2)), visit.inputs), axis=0)

    propagate(
        draft.reference, crops, measure, draft.names, threads=threads, title="ranges of channels", float_only=True
    )
    factors = class_factors(channels, draft.layers, reach, settings.strength)
    model = scaled(draft.reference, {blob: factors[classes] for blob, classes in channels.classes.items()})
    return replace(draft, reference=model, model=model)


@dataclass(frozen=True)
class Channels:
    """Which channels of a network can be scaled, and which of them only alike.

    Attributes:
        classes: for each blob that is a map, the class of each of its channels, int64 (C,).
        fixed: whether the channels of a class have to stay as they are, bool (K,).
        clipped: for each blob that a layer clips, where.
    """

    classes: Mapping[str, Integers]
    fixed: NDArray[np.bool_]
    clipped: Mapping[str, float]

    @classmethod
    def of(cls, model: NcnnModel, crop: Floats) -> "Channels":
        """Find them by sending numbers in the place of values through the layers that move values.

        Args:
            model: the float network.
            crop: any crop, float32 (3, H, W): what counts are the sizes of the blobs.
        """
        tracer = _Tracer()
        for layer, weights in zip(model.layers, model.weights, strict=True):
            tracer.trace(layer, weights, crop)
        return tracer.channels()


@dataclass
class _Tracer:
    """Maps that hold in the place of each value the number of the channel that it was made as.

    Attributes:
        maps: of the blobs that are not read yet.
        read: channel by channel, the number of each map that was seen, int64 (C,).
        alike: pairs of numbers of channels that are scaled alike, int64 (N, 2).
        fixed: numbers of channels that are not scaled.
        clipped: as in `Channels`.
        count: of the numbers that were given.
    """

    maps: dict[str, Floats] = field(default_factory=dict)
    read: dict[str, Integers] = field(default_factory=dict)
    alike: list[Integers] = field(default_factory=list)
    fixed: list[Integers] = field(default_factory=list)
    clipped: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def trace(self, layer: Layer, weights: Weights, crop: Floats) -> None:
        """Take the numbers through a layer."""
        inputs = [self.maps.pop(blob) for blob in layer.bottoms]
        if layer.type == "Input":
            outputs = [self._fix(self._new(crop.shape))]
        elif layer.type == "Split":
            outputs = inputs * len(layer.tops)
        elif layer.type in _MOVING:
            outputs = LayerNetwork(layer, weights).run(inputs)
        elif is_sum(layer) and inputs[0].shape == inputs[1].shape:
            self.alike.append(np.unique(np.stack([one.ravel() for one in inputs]), axis=1).T.astype(np.int64))
            outputs = inputs[:1]
        else:
            made = LayerNetwork(layer, weights).run([np.ones_like(one) for one in inputs])
            outputs = [self._through(layer, inputs, one.shape) for one in made]
        for blob, numbers in zip(layer.tops, outputs, strict=True):
            self.maps[blob] = numbers
            if numbers.ndim == 3:
                self.read[blob] = self._by_channel(numbers)

    def _through(self, layer: Layer, inputs: list[Floats], shape: tuple[int, ...]) -> Floats:
        """Return the numbers behind a layer that computes."""
        if layer.type in _HOMOGENEOUS and inputs[0].ndim == len(shape) == 3:
            return np.broadcast_to(self._by_channel(inputs[0])[:, np.newaxis, np.newaxis], shape).astype(np.float32)
        numbers = self._new(shape)
        if not _has_scalable_weights(layer):
            for one in (*inputs, numbers):
                self._fix(one)
        elif layer.integer(ACTIVATION) == _CLIP and layer.reals(ACTIVATION_VALUES)[0] == 0:
            self.clipped[layer.tops[0]] = layer.reals(ACTIVATION_VALUES)[1]
        elif layer.integer(ACTIVATION) not in _HOMOGENEOUS_ACTIVATIONS:
            self._fix(numbers)
        return numbers

    def channels(self) -> Channels:
        """Return what was found, when all layers are traced."""
        for numbers in self.maps.values():
            self._fix(numbers)
        pairs = np.unique(np.concatenate([np.empty((0, 2), np.int64), *self.alike]), axis=0)
        links = coo_array((np.ones(len(pairs)), pairs.T), shape=(self.count, self.count))
        count, class_of = connected_components(links, directed=False)
        fixed = np.zeros(count, bool)
        fixed[class_of[np.unique(np.concatenate(self.fixed))]] = True
        classes = {blob: class_of[numbers].astype(np.int64) for blob, numbers in self.read.items()}
        return Channels(classes, fixed, self.clipped)

    def _new(self, shape: tuple[int, ...]) -> Floats:
        first, self.count = self.count, self.count + shape[0]
        numbers = np.arange(first, self.count).reshape(-1, *[1] * (len(shape) - 1))
        return np.broadcast_to(numbers, shape).astype(np.float32)

    def _fix(self, numbers: Floats) -> Floats:
        self.fixed.append(np.unique(numbers).astype(np.int64))
        return numbers

    def _by_channel(self, numbers: Floats) -> Integers:
        """Return one number for each channel of a map; channels that come together in one are scaled alike."""
        rows = numbers.reshape(len(numbers), -1).astype(np.int64)
        if (rows != rows[:, :1]).any():
            self.alike.append(np.stack([np.repeat(rows[:, 0], rows.shape[1]), rows.ravel()], axis=1))
        return rows[:, 0]


def class_factors(channels: Channels, layers: Sequence[Layer], reach: Mapping[str, Floats], strength: float) -> Floats:
    """Return the factor of each class of channels, float32 (K,), from 1 up.

    Args:
        channels: the classes.
        layers: the layers to quantize.
        reach: the largest magnitude of each channel of what they read, by blob, float32 (C,).
        strength: the power that is taken of the ratio of ranges, for channels that a dense layer reads.
    """
    count = len(channels.fixed)
    # The largest share that a channel of the class has of its tensor's range; 0 where INT8 layers read none.
    share, dense = np.zeros(count, np.float32), np.zeros(count, bool)
    limit = np.full(count, np.inf, np.float32)
    for layer in layers:
        (blob,) = layer.bottoms
        if blob not in channels.classes:
            continue
        classes = channels.classes[blob]
        np.maximum.at(share, classes, reach[blob] / max(float(reach[blob].max()), _TINY))
        dense[classes] |= layer.type != "ConvolutionDepthWise"
        if blob in channels.clipped:
            free = HEADROOM * channels.clipped[blob] / np.maximum(reach[blob], _TINY)
            np.minimum.at(limit, classes, free)
    powers = np.where(dense, strength, 1.0)
    factors = np.where(share > 0, np.maximum(share, 1e-6) ** -powers, 1.0)
    factors = np.minimum(factors, np.where(dense, MOST, MOST_DEPTHWISE))
    factors = np.maximum(np.minimum(factors, limit), 1.0)
    return np.where(channels.fixed, 1.0, factors).astype(np.float32)


def _has_scalable_weights(layer: Layer) -> bool:
    inputs = weighted_inputs(layer)
    return layer.type in _WEIGHTED and inputs is not None and layer.integer(7, 1) in (1, inputs)


def scaled(model: NcnnModel, factors: Mapping[str, Floats]) -> NcnnModel:
    """Return a model whose channels are multiplied by factors on their way, with the same outputs.

    Args:
        model: the float model.
        factors: for blobs by name, float32 (C,), those of one class of `Channels` alike.
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
