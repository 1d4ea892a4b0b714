"""By how many levels of INT8 two processors differ within a network, layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posequant.ncnn_format.model import Layer, NcnnModel
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.networks.ncnn_layers import kernel_class
from posequant.quantize.ncnn2int8 import REQUANTIZED, quantized

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LevelDifference:
    """How far integers differ.

    Attributes:
        values: how many there are.
        share: the share of them that differ.
        largest: the greatest difference, in levels.
    """

    values: int
    share: float
    largest: int

    @classmethod
    def of(cls, pairs: Sequence[tuple[Floats, Floats]]) -> "LevelDifference":
        """Return that of pairs of arrays, whose values are integers."""
        apart = [np.abs(one - other) for one, other in pairs]
        values = sum(each.size for each in apart)
        differing = sum(np.count_nonzero(each) for each in apart)
        return cls(values, float(differing / values), max(int(each.max()) for each in apart))


@dataclass(frozen=True)
class LayerLevels:
    """A layer in INT8 on two processors.

    Attributes:
        name: of the layer.
        kernel: the class of kernel that ncnn computes it with.
        input: how far its inputs differ, as the layer rounds them: what the layers before it add up to.
        own: how far its outputs differ where both get the same input, in levels of the layers that read it; None where
            it hands on floats.
        own_float: the same where it hands on floats, the greatest difference as a share of the greatest value; None
            where it hands on levels.
    """

    name: str
    kernel: str
    input: LevelDifference
    own: LevelDifference | None
    own_float: float | None


def layer_levels(
    model: NcnnModel, here: Sequence[Mapping[str, Floats]], there: Sequence[Mapping[str, Floats]]
) -> list[LayerLevels]:
    """Compare the layers in INT8 of a network on this processor and on another.

    Matrix products, which find the scales of their inputs as they come, are left out.

    Args:
        model: the INT8 network.
        here: for some crops, the values of the blobs that `compared_blobs` names, on this processor.
        there: the same on the other.
    """
    makers = {top: layer for layer in model.layers for top in layer.tops}
    found = []
    for layer, weights in zip(model.layers, model.weights, strict=True):
        if not _has_scale(layer, weights):
            continue
        bottom, top, scale = layer.bottoms[0], layer.tops[0], weights["bottom_scales"][:1]
        integers = _hands_on_levels(bottom, makers)
        inputs = [[_levels(blobs[bottom], scale, integers) for blobs in run] for run in (here, there)]
        # What this processor makes of the other's input, beside what the other made of it.
        alone = LayerNetwork(layer, weights)
        given = [(blobs[bottom] / scale).astype(np.float32) if integers else blobs[bottom] for blobs in there]
        pairs = [(alone.run([values])[0], blobs[top]) for values, blobs in zip(given, there, strict=True)]
        requantizes = layer.int8_term > REQUANTIZED
        found.append(
            LayerLevels(
                name=layer.name,
                kernel=kernel_class(layer),
                input=LevelDifference.of(list(zip(*inputs, strict=True))),
                own=LevelDifference.of(pairs) if requantizes else None,
                own_float=None if requantizes else _relative(pairs),
            )
        )
    return found


def compared_blobs(model: NcnnModel) -> list[str]:
    """Return the blobs that `layer_levels` looks at, in the order in which the network makes them."""
    wanted = {
        blob
        for layer, weights in zip(model.layers, model.weights, strict=True)
        if _has_scale(layer, weights)
        for blob in (layer.bottoms[0], layer.tops[0])
    }
    return [top for layer in model.layers for top in layer.tops if top in wanted]


def _has_scale(layer: Layer, weights: Mapping[str, NDArray[np.generic]]) -> bool:
    return bool(layer.int8_term) and "bottom_scales" in weights


def _hands_on_levels(blob: str, makers: Mapping[str, Layer]) -> bool:
    """Return whether a blob holds INT8: its maker, or the one before a Split, requantizes."""
    maker = makers[blob]
    while maker.type == "Split":
        maker = makers[maker.bottoms[0]]
    return maker.int8_term > REQUANTIZED


def _levels(values: Floats, scale: Floats, integers: bool) -> Floats:
    return values.ravel() if integers else quantized(values.ravel(), scale).astype(np.float32)


def _relative(pairs: Sequence[tuple[Floats, Floats]]) -> float:
    largest = max(float(np.abs(one).max()) for one, _ in pairs)
    apart = max(float(np.abs(one.astype(np.float64) - other).max()) for one, other in pairs)
    return apart / largest if largest else 0.0
