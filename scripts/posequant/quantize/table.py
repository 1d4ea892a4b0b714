"""The calibration table: the file between ncnn2table and ncnn2int8."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import require_file, whole
from posequant.ncnn_format.model import Layer, NcnnModel
from posequant.quantize.weights import INT8_LIMIT, quantizable, weight_scale_count

_WEIGHT_SUFFIX = "_param_0"
# What the largest INT8 value of an activation can stand for. Below is nothing that float16 holds, above what float32 no
# longer counts in whole numbers; no network that is run in either computes such values.
_LEAST_RANGE, _GREATEST_RANGE = 2.0**-24, 2.0**24


@dataclass(frozen=True)
class CalibrationTable:
    """The scales of a network: factors from a value to its symmetric INT8 value.

    Attributes:
        weight_scales: for each layer, by name, float32 (C,): one scale per output channel or depthwise group.
        activation_scales: for each layer, by name, the scale of its input.
    """

    weight_scales: dict[str, NDArray[np.float32]]
    activation_scales: dict[str, np.float32]

    @classmethod
    def read(cls, path: Path) -> "CalibrationTable":
        """Read a table in the format of ncnn2table; `InputError` naming the line if it is not one.

        Whether the scales can be used is for `check` to say.
        """
        weights: dict[str, NDArray[np.float32]] = {}
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
            layer = name.removesuffix(_WEIGHT_SUFFIX)
            if layer in (activations if layer == name else weights):
                raise InputError(f"{where}: {name} occurs twice. Delete one of the lines.")
            if layer != name:
                weights[layer] = scales
            elif scales.size == 1:
                activations[layer] = scales[0]
            else:
                raise InputError(f"{where}: {name} has {scales.size} activation scales; one is expected.")
        return cls(weights, activations)

    def write(self, path: Path) -> None:
        """Write the table as ncnn2table does (six decimals), whole or not at all."""
        lines = [_line(name + _WEIGHT_SUFFIX, scales) for name, scales in self.weight_scales.items()]
        lines += [_line(name, np.array([scale])) for name, scale in self.activation_scales.items()]
        with whole(path) as draft:
            draft.write_text("".join(lines))

    def without(self, names: Collection[str]) -> "CalibrationTable":
        """Return the table without the lines of the layers `names`."""
        return CalibrationTable(
            {name: scales for name, scales in self.weight_scales.items() if name not in names},
            {name: scale for name, scale in self.activation_scales.items() if name not in names},
        )

    def check(self, layers: list[Layer], keep_float: Collection[str], source: Path) -> None:
        """Make sure that the table can quantize a network: what ncnn2int8 would pass over in silence is an error here.

        Args:
            layers: the network's layers.
            keep_float: names of layers that are to stay in float; every other quantizable layer needs its two lines.
            source: the table's file, for the messages.

        Raises:
            InputError: naming the layer, if a scale is not a positive number, an activation scale stands for values
                that no network computes, or if a line is missing, stands for a layer that the network does not have, or
                has another number of scales than the layer has channels; or as `quantizable` does.
        """
        names = {layer.name for layer in quantizable(layers)}
        for name in [*self.weight_scales, *self.activation_scales]:
            if name not in names:
                raise InputError(f"{source}: {name} is no layer of the model that can be quantized. {_AGAIN}")
        for layer in quantizable(layers, keep_float):
            self._check_layer(layer.name, weight_scale_count(layer), source)

    def check_weights(self, model: NcnnModel, source: Path) -> None:
        """Make sure that the weight scales are those of a network's weights, after `check`.

        Calibration may clip weights. But a scale by which the largest weight of a channel exceeds INT8 a hundredfold
        leaves less than one step of that weight's own scale, and one by which it becomes 0 leaves nothing.

        Raises:
            InputError: naming the layer and the scale.
        """
        for layer, weights in zip(model.layers, model.weights, strict=True):
            if layer.name not in self.weight_scales:
                continue
            scales = self.weight_scales[layer.name].astype(np.float64)
            largest = np.abs(weights["weight"].astype(np.float64)).reshape(len(scales), -1).max(axis=1)
            integers = largest * scales
            wrong = (largest != 0) & ~((integers >= 0.5) & (integers <= INT8_LIMIT**2))
            if wrong.any():
                place = int(wrong.argmax())
                raise InputError(
                    f"{source}: by the weight scale {scales[place]:g} of layer {layer.name} the largest weight of "
                    f"channel {place} becomes {integers[place]:.3g}, where INT8 holds 1 to {INT8_LIMIT}. {_AGAIN}"
                )

    def _check_layer(self, name: str, count: int, source: Path) -> None:
        for scales, kind in ((self.weight_scales, "weight"), (self.activation_scales, "activation")):
            if name not in scales:
                raise InputError(f"{source}: layer {name} has no {kind} scale. {_AGAIN} Or keep the layer in float.")
            values = np.atleast_1d(scales[name])
            wrong = values[~((values > 0) & np.isfinite(values))]
            if wrong.size:
                raise InputError(
                    f"{source}: the {kind} scale {wrong[0]} of layer {name} is not a positive number: its {kind}s are "
                    "zero, not finite or too large for the table. Keep the layer in float, or mend the model."
                )
        represented = INT8_LIMIT / float(self.activation_scales[name])
        if not _LEAST_RANGE <= represented <= _GREATEST_RANGE:
            raise InputError(
                f"{source}: by the activation scale {self.activation_scales[name]:g} of layer {name} INT8 would hold "
                f"values up to {represented:.3g}; no network computes such values. {_AGAIN}"
            )
        if (found := len(self.weight_scales[name])) != count:
            raise InputError(f"{source}: layer {name} has {found} weight scales, but {count} channels. {_AGAIN}")


_AGAIN = "Run ncnn2table again with this model."


def _line(name: str, scales: NDArray[np.float32]) -> str:
    return f"{name} " + "".join(f"{scale:f} " for scale in scales.astype(np.float64)) + "\n"
