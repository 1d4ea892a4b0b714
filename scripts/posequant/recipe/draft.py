"""What the steps of a recipe hand on: a float network on its way to INT8."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from posequant.base.signal import Powers
from posequant.ncnn_format.model import Layer, NcnnModel, Weights
from posequant.quantize.ncnn2int8 import quantize, quantize_layer, quantize_product
from posequant.quantize.table import CalibrationTable, attention_scales
from posequant.quantize.weights import products, quantizable
from posequant.recipe.score import Evidence

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rung:
    """A network that was tried: what was measured of the real INT8 network at one stage of a recipe.

    What it loses is said by `score.scores` of all rungs together.

    Attributes:
        step: what is new in it, in words.
        keep_float: names of the layers in float, in the network's order.
        evidence: what was measured of its outputs and poses.
        int8_work: share of the float network's multiply-accumulates that it computes in INT8.
        megabytes: size of the weights in the INT8 model.
        milliseconds: for one crop on one thread; None where it was not timed.
        undone: whether the step that made it was undone.
    """

    step: str
    keep_float: list[str]
    evidence: Evidence
    int8_work: float
    megabytes: float
    milliseconds: float | None
    undone: bool = False

    @property
    def sqnr_db(self) -> float | None:
        """The SQNR of the network's outputs in dB; None where they are equal to the float network's."""
        return Powers.total(self.evidence.powers).sqnr_db


@dataclass(frozen=True)
class Draft:
    """A float network and what has been decided so far of its quantization.

    Attributes:
        reference: the float network that the quantized one is to equal.
        model: the same layers, with the weights and biases that are to be quantized.
        weight_scales: for each layer by name, factors from its weights to INT8, float32 (C,).
        weight_limits: for each layer, the largest INT8 weight: 31 or 127.
        activation_scales: for each layer, the factor from its input to INT8.
        keep_float: names of the layers that stay in float.
        biases_corrected: whether a step corrected the biases.
        rungs: what was measured on the way, in order.
        place: that of this draft's own rung among them, where it was measured.
    """

    reference: NcnnModel
    model: NcnnModel
    weight_scales: Mapping[str, Floats] = field(default_factory=dict)
    weight_limits: Mapping[str, int] = field(default_factory=dict)
    activation_scales: Mapping[str, np.float32] = field(default_factory=dict)
    keep_float: frozenset[str] = frozenset()
    biases_corrected: bool = False
    rungs: tuple[Rung, ...] = ()
    place: int = 0

    @classmethod
    def of(cls, model: NcnnModel) -> "Draft":
        """Return the draft with which a recipe starts."""
        return cls(model, model)

    @property
    def layers(self) -> list[Layer]:
        """The layers to quantize by scales that steps choose, in the network's order. Matrix products have no such."""
        return quantizable(self.model.layers, self.keep_float)

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [layer.name for layer in self.layers]

    @property
    def in_int8(self) -> list[Layer]:
        """All layers that are computed in INT8, matrix products too, in the network's order."""
        names = {*self.names, *(layer.name for layer in products(self.model.layers, self.keep_float))}
        return [layer for layer in self.model.layers if layer.name in names]

    @property
    def complete(self) -> bool:
        """Whether all layers to quantize have their scales."""
        return all(name in scales for name in self.names for scales in (self.weight_scales, self.activation_scales))

    @property
    def standing(self) -> Rung:
        """This draft's own rung."""
        return self.rungs[self.place]

    def without_scales(self) -> "Draft":
        """Return the draft with all scales still to be chosen, and so with biases that are not corrected for them."""
        return replace(self, weight_scales={}, weight_limits={}, activation_scales={}, biases_corrected=False)

    @property
    def table(self) -> CalibrationTable:
        """The scales of the layers to quantize."""
        return CalibrationTable(
            {name: self.weight_scales[name] for name in self.names},
            {name: self.activation_scales[name] for name in self.names},
            attention_scales(self.model, self.keep_float),
        )

    @property
    def int8(self) -> NcnnModel:
        """The INT8 network, once it is `complete`."""
        return quantize(self.model, self.table, self.keep_float)

    def with_weights(self, changed: Mapping[str, Weights]) -> "Draft":
        """Return the draft with other float weights to quantize for some layers, by name."""
        return replace(self, model=with_weights(self.model, changed))

    def quantized(self, layer: Layer) -> tuple[Layer, Weights]:
        """Return a layer in INT8 by itself, as decided so far."""
        weights = self.model.named(layer.name)[1]
        if layer.name not in self.weight_scales:
            return quantize_product(layer, weights, self.table.attention_scales.get(layer.name))
        return quantize_layer(layer, weights, self.weight_scales[layer.name], self.activation_scales[layer.name])


def with_weights(model: NcnnModel, changed: Mapping[str, Weights]) -> NcnnModel:
    """Return a model with other weights for the layers that `changed` names."""
    weights = [
        {**values, **changed.get(layer.name, {})} for layer, values in zip(model.layers, model.weights, strict=True)
    ]
    return NcnnModel(model.layers, weights)


def representable(scales: Floats) -> Floats:
    """Return scales as a calibration table holds them, with six decimals, so that file and memory agree."""
    rounded: Floats = np.array([float(f"{scale:f}") for scale in np.ravel(scales)], np.float32).reshape(scales.shape)
    return rounded
