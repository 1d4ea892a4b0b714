"""The calibration table: the file between ncnn2table and ncnn2int8."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import require_file, whole
from posequant.ncnn_format.model import Layer, NcnnModel, Weights
from posequant.ncnn_format.products import matrices
from posequant.quantize.weights import INT8_LIMIT, product_scales, products, quantizable, weight_scale_count

# The scales of a layer's weights: 0 of a convolution or an inner product, 0 to 3 of attention.
_ATTENTION = ("q_weight", "k_weight", "v_weight", "out_weight")
_WEIGHT_LINE = re.compile(r"(?P<layer>.+)_param_(?P<place>[0-3])")
# What the largest INT8 value of an activation can stand for. Below is nothing that float16 holds, above what float32 no
# longer counts in whole numbers; no network that is run in either computes such values.
_LEAST_RANGE, _GREATEST_RANGE = 2.0**-24, 2.0**24


@dataclass(frozen=True)
class CalibrationTable:
    """The scales of a network: factors from a value to its symmetric INT8 value.

    Attributes:
        weight_scales: for each layer, by name, float32 (C,): one scale per output channel or depthwise group.
        activation_scales: for each layer, by name, the scale of its input.
        attention_scales: for each MultiHeadAttention layer, by name, those of `product_scales`; its inputs have none.
    """

    weight_scales: dict[str, NDArray[np.float32]]
    activation_scales: dict[str, np.float32]
    attention_scales: dict[str, dict[str, NDArray[np.float32]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "CalibrationTable":
        """Read a table in the format of ncnn2table; `InputError` naming the line if it is not one.

        Whether the scales can be used is for `check` to say.
        """
        weights: dict[str, dict[int, NDArray[np.float32]]] = {}
        activations: dict[str, np.float32] = {}
        try:
            lines = require_file(path, "Run ncnn2table again.").read_text().splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not a calibration table, as it is not a text file.") from error
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            name, *values = line.split() or [""]
            try:
                scales = np.array([float(value) for value in values], np.float32)
            except ValueError as error:
                raise InputError(f"{where}: {error}. The table is damaged: run ncnn2table again.") from error
            if not scales.size:
                raise InputError(f"{where}: there is no scale. The table is damaged: run ncnn2table again.")
            of_weights = _WEIGHT_LINE.fullmatch(name)
            layer, place = (of_weights["layer"], int(of_weights["place"])) if of_weights else (name, 0)
            if place in weights.get(layer, {}) if of_weights else layer in activations:
                raise InputError(f"{where}: {name} occurs twice. Delete one of the lines.")
            if of_weights:
                weights.setdefault(layer, {})[place] = scales
            elif scales.size == 1:
                activations[layer] = scales[0]
            else:
                raise InputError(f"{where}: {name} has {scales.size} activation scales; one is expected.")
        return cls(
            {name: found[0] for name, found in weights.items() if found.keys() == {0}},
            activations,
            {
                name: {_ATTENTION[place]: scales for place, scales in found.items()}
                for name, found in weights.items()
                if found.keys() != {0}
            },
        )

    def write(self, path: Path) -> None:
        """Write the table as ncnn2table does (six decimals), whole or not at all."""
        lines = [_line(f"{name}_param_0", scales) for name, scales in self.weight_scales.items()]
        lines += [_line(name, np.array([scale])) for name, scale in self.activation_scales.items()]
        for name, found in self.attention_scales.items():
            lines += [_line(f"{name}_param_{_ATTENTION.index(matrix)}", scales) for matrix, scales in found.items()]
        with whole(path) as draft:
            draft.write_text("".join(lines))

    def without(self, names: Collection[str]) -> "CalibrationTable":
        """Return the table without the lines of the layers `names`."""
        return CalibrationTable(
            {name: scales for name, scales in self.weight_scales.items() if name not in names},
            {name: scale for name, scale in self.activation_scales.items() if name not in names},
            {name: scales for name, scales in self.attention_scales.items() if name not in names},
        )

    def check(self, layers: list[Layer], keep_float: Collection[str], source: Path) -> None:
        """Make sure that the table can quantize a network: what ncnn2int8 would pass over in silence is an error here.

        Args:
            layers: the network's layers.
            keep_float: names of layers that are to stay in float; every other quantizable layer needs its two lines,
                and every other MultiHeadAttention layer its four.
            source: the table's file, for the messages.

        Raises:
            InputError: naming the layer, if a scale is not a positive number, an activation scale stands for values
                that no network computes, or if a line is missing, stands for a layer that the network does not have, or
                has another number of scales than the layer has channels; or as `quantizable` does.
        """
        names = {layer.name for layer in quantizable(layers)}
        attention = {layer.name for layer in _attention(layers)}
        known = [(name, names) for name in [*self.weight_scales, *self.activation_scales]]
        for name, those in [*known, *((name, attention) for name in self.attention_scales)]:
            if name not in those:
                raise InputError(f"{source}: {name} is no layer of the model that can be quantized. {_AGAIN}")
        for layer in quantizable(layers, keep_float):
            self._check_layer(layer.name, weight_scale_count(layer), source)
        for layer in _attention(layers, keep_float):
            self._check_attention(layer, source)

    def check_weights(self, model: NcnnModel, source: Path) -> None:
        """Make sure that the weight scales are those of a network's weights, after `check`.

        Calibration may clip weights. But a scale by which the largest weight of a channel exceeds INT8 a hundredfold
        leaves less than one step of that weight's own scale, and one by which it becomes 0 leaves nothing.

        Raises:
            InputError: naming the layer and the scale.
        """
        for layer, weights in zip(model.layers, model.weights, strict=True):
            for name, channels, found in self._scaled(layer, weights):
                scales = found.astype(np.float64)
                largest = np.abs(channels.astype(np.float64)).reshape(len(scales), -1).max(axis=1)
                integers = largest * scales
                wrong = (largest != 0) & ~((integers >= 0.5) & (integers <= INT8_LIMIT**2))
                if wrong.any():
                    place = int(wrong.argmax())
                    raise InputError(
                        f"{source}: by the weight scale {scales[place]:g} of layer {name} the largest weight of "
                        f"channel {place} becomes {integers[place]:.3g}, where INT8 holds 1 to {INT8_LIMIT}. {_AGAIN}"
                    )

    def _scaled(self, layer: Layer, weights: Weights) -> Iterator[tuple[str, NDArray[Any], NDArray[np.float32]]]:
        """Yield the weights of a layer that have scales here, named for messages, and the scales."""
        if layer.name in self.weight_scales:
            yield layer.name, weights["weight"], self.weight_scales[layer.name]
        if layer.name in self.attention_scales:
            for name, matrix in matrices(layer, weights).items():
                yield f"{layer.name} ({name})", matrix, self.attention_scales[layer.name][name]

    def _check_layer(self, name: str, count: int, source: Path) -> None:
        for scales, kind in ((self.weight_scales, "weight"), (self.activation_scales, "activation")):
            if name not in scales:
                raise InputError(f"{source}: layer {name} has no {kind} scale. {_AGAIN} Or keep the layer in float.")
            _require_positive(np.atleast_1d(scales[name]), kind, name, source)
        represented = INT8_LIMIT / float(self.activation_scales[name])
        if not _LEAST_RANGE <= represented <= _GREATEST_RANGE:
            raise InputError(
                f"{source}: by the activation scale {self.activation_scales[name]:g} of layer {name} INT8 would hold "
                f"values up to {represented:.3g}; no network computes such values. {_AGAIN}"
            )
        if (found := len(self.weight_scales[name])) != count:
            raise InputError(f"{source}: layer {name} has {found} weight scales, but {count} channels. {_AGAIN}")

    def _check_attention(self, layer: Layer, source: Path) -> None:
        found = self.attention_scales.get(layer.name, {})
        for place, name in enumerate(_ATTENTION):
            count = layer.integer(0) if name != "out_weight" else 1
            if name not in found:
                raise InputError(
                    f"{source}: layer {layer.name} has no line {layer.name}_param_{place}. {_AGAIN} Or keep the layer "
                    "in float."
                )
            _require_positive(found[name], "weight", layer.name, source)
            if len(found[name]) != count:
                raise InputError(
                    f"{source}: line {layer.name}_param_{place} has {len(found[name])} scales; {count} are expected. "
                    f"{_AGAIN}"
                )


def attention_scales(model: NcnnModel, keep_float: Collection[str]) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return the scales that a table holds of the MultiHeadAttention layers of a network, as ncnn2table finds them.

    Args:
        model: the network.
        keep_float: names of layers that stay in float.
    """
    wanted = {layer.name for layer in _attention(model.layers, keep_float)}
    return {
        layer.name: product_scales(layer, weights)
        for layer, weights in zip(model.layers, model.weights, strict=True)
        if layer.name in wanted
    }


def _attention(layers: list[Layer], keep_float: Collection[str] = ()) -> list[Layer]:
    return [layer for layer in products(layers, keep_float) if layer.type == "MultiHeadAttention"]


def _require_positive(scales: NDArray[np.float32], kind: str, name: str, source: Path) -> None:
    wrong = scales[~((scales > 0) & np.isfinite(scales))]
    if wrong.size:
        raise InputError(
            f"{source}: the {kind} scale {wrong[0]} of layer {name} is not a positive number: its {kind}s are zero, "
            "not finite or too large for the table. Keep the layer in float, or mend the model."
        )


_AGAIN = "Run ncnn2table again with this model."


def _line(name: str, scales: NDArray[np.float32]) -> str:
    return f"{name} " + "".join(f"{scale:f} " for scale in scales.astype(np.float64)) + "\n"
