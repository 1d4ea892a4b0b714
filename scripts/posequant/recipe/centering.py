"""The step `center`: tensors are stored about the middle of their ranges, exactly in float.

ncnn's INT8 has no zero point, so a tensor behind a ReLU, which is never negative, uses 128 of the 255 levels. Stored as
`c - x`, with c in the middle of what INT8 is to hold, it uses all: the step between two levels is halved, which is
worth 6 dB of each such tensor. That costs nothing at run time. The layer that makes the tensor gets its weights
negated, c added to its bias, and a clip at c in place of its ReLU; layers that read it get their weights negated and
their bias changed; and what they are padded with is c in place of 0.

Zero is stored as c and not as -c: ncnn for x86 (`src/layer/x86/padding_x86.cpp`, forward_int8) pads wrongly with
negative INT8 values where eight channels are packed.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from posequant.ncnn_format.model import (
    ACTIVATION,
    ACTIVATION_VALUES,
    PAD_VALUE,
    Layer,
    NcnnModel,
    Weights,
    array_key,
    is_sum,
    weighted_inputs,
)
from posequant.ncnn_format.window import Window
from posequant.quantize.ncnn2int8 import quantized
from posequant.quantize.propagation import Visit, propagate
from posequant.quantize.weights import INT8_LIMIT
from posequant.recipe.draft import Draft, Floats, representable
from posequant.workflow.settings.recipe import CenterStep

# Layers whose output is stored as their inputs are: they copy values, or average them with weights that add up to 1.
_PASSING = {"Split", "Interp", "Concat", "Slice", "Reshape", "Permute", "ShuffleChannel", "PixelShuffle", "Flatten"}
_PASSING |= {"Dropout", "Noop"}
_CONVOLUTIONS = {"Convolution", "ConvolutionDepthWise"}
# Layers that can give what is stored otherwise, and of them those that can read it: at its border a deconvolution adds
# up fewer weights, so what it reads has to be plain.
_READING = _CONVOLUTIONS | {"InnerProduct"}
_WEIGHTED = _READING | {"Deconvolution", "DeconvolutionDepthWise"}
# A bound that no value meets, in place of none.
_UNBOUNDED = 1e30
# Layers of which each output channel is the input channel of the same number.
_SAME_CHANNELS = {"Split", "Interp", "Dropout", "Noop"}

Doubles = NDArray[np.float64]
Shift = float | Doubles


class Storage(NamedTuple):
    """How a tensor x is stored: as `sign * x + shift`, with one shift or, float64 (C,), one for each channel."""

    sign: int = 1
    shift: Shift = 0.0

    @property
    def shifted(self) -> bool:
        """Whether any value is shifted."""
        return bool(np.any(self.shift))


PLAIN = Storage()


class Extent(NamedTuple):
    """Where the values of a tensor are that INT8 is to hold.

    Attributes:
        low: 0 for what is never negative; else the least value of each channel, float64 (C,).
        high: the largest value; else that of each channel.
    """

    low: float | Doubles
    high: float | Doubles

    @classmethod
    def of(cls, values: Sequence[Floats], upper: float) -> "Extent":
        """Return that of a tensor on some crops.

        Args:
            values: N arrays, float32 of any shape, channels first.
            upper: the largest magnitude that INT8 holds so far.
        """
        rows = [one.reshape(len(one), -1) for one in values]
        low = np.min([one.min(axis=1) for one in rows], axis=0).astype(np.float64)
        if (low >= 0).all():
            return cls(0.0, upper)
        high = np.max([one.max(axis=1) for one in rows], axis=0).astype(np.float64)
        return cls(np.clip(low, -upper, upper), np.clip(high, -upper, upper))

    @property
    def by_channel(self) -> bool:
        """Whether each channel has its own."""
        return np.ndim(self.low) > 0


def center(draft: Draft, crops: Sequence[Floats], threads: int, settings: CenterStep) -> Draft:
    """Store tensors about the middle of their ranges, with a smaller step between two levels of INT8.

    What is never negative has half the step: the upper end of its range stays where the activation scale has it. What
    may be negative and has no activation, as between the blocks of a MobileNetV2, is stored about the middle of each
    channel, within the range that the activation scale gives: that takes a bias for each channel, and layers that read
    it without padding. Tensors that meet in a sum are stored so that the sum comes out right by itself:
    `(a - x) + (b - y)` is `(a + b) - (x + y)`. A tensor stays as it is where a layer that makes or reads it, or another
    one of the same sum, cannot be changed so.

    Args:
        draft: the draft, with all scales.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time.
        settings: how many of the crops are looked at.
    """
    upper = {layer.bottoms[0]: INT8_LIMIT / float(draft.activation_scales[layer.name]) for layer in draft.layers}
    extents: dict[str, Extent] = {}

    def measure(visit: Visit) -> None:
        blob = visit.layer.bottoms[0]
        extents[blob] = Extent.of(visit.inputs, upper[blob])

    crops = crops[: settings.crops]
    propagate(draft.reference, crops, measure, draft.names, threads=threads, title="ranges", float_only=True)
    stored = storages(draft.reference.layers, extents)
    scales = {
        layer.name: centered_scale(extents[layer.bottoms[0]], stored[layer.bottoms[0]].shift)
        for layer in draft.layers
        if stored.get(layer.bottoms[0], PLAIN).shifted
    }
    print(f"notice: the inputs of {len(scales)} of {len(draft.names)} layers use all levels now", file=sys.stderr)
    return replace(
        draft,
        reference=stored_as(draft.reference, stored),
        # What INT8 multiplies with the shift are rounded weights.
        model=stored_as(draft.model, stored, {layer.name: _rounded(draft, layer) for layer in draft.layers}),
        activation_scales={**draft.activation_scales, **scales},
    )


def _rounded(draft: Draft, layer: Layer) -> Floats:
    """Return the weights that a layer's INT8 weights stand for."""
    scales = draft.weight_scales[layer.name]
    int8 = quantized(draft.model.named(layer.name)[1]["weight"].astype(np.float32), scales)
    rounded: Floats = (int8.reshape(len(scales), -1) / scales[:, np.newaxis]).astype(np.float32).ravel()
    return rounded


def centered_scale(extent: Extent, shift: Shift) -> np.float32:
    """Return the scale of a tensor that is stored as `shift` - x.

    Args:
        extent: what is to be held.
        shift: one above 0, which becomes an integer, as layers are padded with it; or float64 (C,).
    """
    reach = float(np.max(np.maximum(shift - extent.low, extent.high - shift)))
    if np.ndim(shift):
        # Channels that never change are stored as 0, in any range.
        reach = reach or 1.0
        return np.float32(representable(np.array([INT8_LIMIT / reach], np.float32))[0])
    # The shift has seven digits: what is whole but for the last of them is whole.
    zero = max(1, int(INT8_LIMIT * float(shift) / reach * (1 + 1e-6)))
    return np.float32(representable(np.array([zero / shift], np.float32))[0])


def storages(layers: Sequence[Layer], extents: Mapping[str, Extent]) -> dict[str, Storage]:
    """Return how blobs are to be stored, by name; those that are not named stay as they are.

    Args:
        layers: the network's layers.
        extents: for each blob that an INT8 layer reads, what is to be held.
    """
    groups, fixed = _groups(layers)
    sums = [layer for layer in layers if is_sum(layer)]
    signs = DisjointSet(groups)
    for layer in layers:
        if _is_passing(layer) or is_sum(layer):
            for blob in (*layer.bottoms, *layer.tops):
                signs.merge(layer.tops[0], blob)
    plain = {signs[blob] for blob in fixed}

    wanted: dict[str, list[Extent]] = {}
    for blob, extent in extents.items():
        if signs[blob] not in plain:
            wanted.setdefault(groups[blob], []).append(extent)
    scalar = _of_one_shift(layers, groups)
    shifts: dict[str, Shift] = {
        group: _middle(found) for group, found in wanted.items() if not any(one.by_channel for one in found)
    }
    shifts |= {
        group: (_stack(one.low for one in found).min(axis=0) + _stack(one.high for one in found).max(axis=0)) / 2
        for group, found in wanted.items()
        if all(one.by_channel for one in found) and group not in scalar
    }
    shifts = _agreeing(shifts, sums, groups, free=_free(layers, groups), scalar=scalar)
    shifted = {signs[group] for group, shift in shifts.items() if np.any(shift)}
    return {blob: Storage(-1, shifts.get(groups[blob], 0.0)) for blob in groups if signs[blob] in shifted}


def stored_as(
    model: NcnnModel, stored: Mapping[str, Storage], rounded: Mapping[str, Floats] | None = None
) -> NcnnModel:
    """Return a model in which tensors are stored otherwise, with the same outputs.

    Args:
        model: the model, float.
        stored: how blobs are stored, by name, as `storages` finds it.
        rounded: weights by which the bias is to make up for the shift, where they are others than the model's.
    """
    rounded = rounded or {}
    pairs = [
        _rewritten(layer, weights, stored, rounded.get(layer.name))
        if stored.keys() & {*layer.bottoms, *layer.tops}
        else (layer, weights)
        for layer, weights in zip(model.layers, model.weights, strict=True)
    ]
    return NcnnModel([layer for layer, _ in pairs], [weights for _, weights in pairs])


def _rewritten(
    layer: Layer, weights: Weights, stored: Mapping[str, Storage], rounded: Floats | None
) -> tuple[Layer, Weights]:
    before, after = stored.get(layer.bottoms[0], PLAIN), stored.get(layer.tops[0], PLAIN)
    if layer.type in ("ReLU", "Clip"):
        low, high = (
            (0.0, _UNBOUNDED) if layer.type == "ReLU" else (layer.real(0, -_UNBOUNDED), layer.real(1, _UNBOUNDED))
        )
        return replace(layer, type="Clip", params=dict(enumerate(_written(_clip(low, high, after))))), weights
    if layer.type not in _WEIGHTED:
        return layer, weights
    rows = weights["weight"].astype(np.float32).reshape(layer.integer(0), -1)
    bias = weights["bias"].astype(np.float64) if "bias" in weights else np.zeros(len(rows))
    # W x + b with x = sign (stored - shift)
    multiplied = rows if rounded is None else rounded.reshape(rows.shape)
    bias = bias - before.sign * _weighted_shift(multiplied, before.shift)
    params = {**layer.params, 1 if layer.type == "InnerProduct" else 5: "1"}
    if before.shifted and layer.type in _CONVOLUTIONS and any(Window.of(layer).pads):
        params[PAD_VALUE] = f"{before.sign * layer.real(PAD_VALUE) + before.shift:e}"
    if (after.sign < 0 or after.shifted) and layer.integer(ACTIVATION):
        low, high = (0.0, _UNBOUNDED) if layer.integer(ACTIVATION) == 1 else layer.reals(ACTIVATION_VALUES)
        params |= {ACTIVATION: "3", array_key(ACTIVATION_VALUES): ",".join(("2", *_written(_clip(low, high, after))))}
    changed = {
        "weight": (rows * (before.sign * after.sign)).ravel(),
        "bias": (after.sign * bias + after.shift).astype(np.float32),
    }
    return replace(layer, params=params), {**weights, **changed}


def _weighted_shift(rows: Floats, shift: Shift) -> Doubles:
    """Return what weights (O, n) make of a shift of all that they read, float64 (O,)."""
    channels = np.atleast_1d(np.asarray(shift, np.float64))
    sums: Doubles = rows.reshape(len(rows), len(channels), -1).sum(axis=2, dtype=np.float64) @ channels
    return sums


def _clip(low: float, high: float, storage: Storage) -> tuple[float, float]:
    """Return the bounds of a clip as they are where the values that it clips are stored so."""
    shift = float(np.asarray(storage.shift))
    ends = sorted(storage.sign * end + (shift if abs(end) < _UNBOUNDED else 0.0) for end in (low, high))
    return ends[0], ends[1]


def _written(values: Iterable[float]) -> list[str]:
    return [f"{value:e}" for value in values]


def _middle(extents: Sequence[Extent]) -> float:
    """Return the shift that serves tensors best, in the mean of the logarithm of their steps.

    It has six decimals after the first digit, as a `.param` holds it.

    Args:
        extents: theirs, from 0 on.
    """
    ends = np.array([extent.high for extent in extents], np.float64)
    shifts = ends / 2
    reaches = np.maximum(shifts[:, np.newaxis], ends - shifts[:, np.newaxis])
    return float(f"{shifts[np.log(reaches).mean(axis=1).argmin()]:e}")


def _stack(ends: Iterable[Shift]) -> Doubles:
    return np.stack([np.asarray(end, np.float64) for end in ends])


def _groups(layers: Sequence[Layer]) -> tuple[dict[str, str], set[str]]:
    """Return for each blob one that stands for all that are stored alike, and the blobs that have to stay."""
    sets = DisjointSet([top for layer in layers for top in layer.tops])
    read = {blob for layer in layers for blob in layer.bottoms}
    fixed = {blob for layer in layers for blob in layer.tops if blob not in read}
    for layer in layers:
        if _is_passing(layer):
            for blob in (*layer.bottoms, *layer.tops):
                sets.merge(layer.tops[0], blob)
        elif _is_weighted(layer):
            if layer.type not in _READING:
                fixed.update(layer.bottoms)
            if layer.integer(ACTIVATION) not in (0, 1, 3):
                fixed.update(layer.tops)
        elif not is_sum(layer):
            fixed.update((*layer.bottoms, *layer.tops))
    return {blob: sets[blob] for blob in sets}, fixed


def _free(layers: Sequence[Layer], groups: Mapping[str, str]) -> set[str]:
    """Return the groups whose shift may be any: linear outputs of layers with weights, that only sums read."""
    bound: set[str] = set()
    for layer in layers:
        if _is_weighted(layer):
            bound.update(layer.bottoms)
            if layer.integer(ACTIVATION):
                bound.update(layer.tops)
        elif layer.type in ("ReLU", "Clip") or not (_is_passing(layer) or is_sum(layer)):
            bound.update((*layer.bottoms, *layer.tops))
        elif is_sum(layer):
            bound.update(layer.tops)
    return set(groups.values()) - {groups[blob] for blob in bound}


def _of_one_shift(layers: Sequence[Layer], groups: Mapping[str, str]) -> set[str]:
    """Return the groups whose channels cannot have shifts of their own.

    An activation has one pair of bounds and a padding one value; and channels are followed through sums only.
    """
    bound: set[str] = set()
    for layer in layers:
        if _is_weighted(layer):
            if layer.type != "Convolution" or any(Window.of(layer).pads):
                bound.update(layer.bottoms)
            if layer.integer(ACTIVATION):
                bound.update(layer.tops)
        elif not is_sum(layer) and layer.type not in _SAME_CHANNELS:
            bound.update((*layer.bottoms, *layer.tops))
    return {groups[blob] for blob in bound}


def _agreeing(
    shifts: Mapping[str, Shift], sums: Sequence[Layer], groups: Mapping[str, str], free: set[str], scalar: set[str]
) -> dict[str, Shift]:
    """Return the shifts of all groups that have one, with those left out by which a sum cannot come out right.

    Args:
        shifts: those that are wanted, by group.
        sums: the layers that add up.
        groups: of blobs.
        free: groups whose shift may be any.
        scalar: groups that have one shift for all channels.
    """
    wanted = dict(shifts)
    while True:
        found, conflict = _solved(wanted, sums, groups, free, scalar)
        if conflict is None:
            return found
        if not conflict & wanted.keys():
            # A free group that two sums read serves the first of them only.
            free = free - conflict
        for group in conflict:
            wanted.pop(group, None)


def _solved(
    wanted: Mapping[str, Shift], sums: Sequence[Layer], groups: Mapping[str, str], free: set[str], scalar: set[str]
) -> tuple[dict[str, Shift], set[str] | None]:
    """Return the shifts that make all sums come out right, or the groups of the first sum that does not."""
    found = dict(wanted)
    for layer in sums:
        total, left, right = (groups[blob] for blob in (*layer.tops, *layer.bottoms))
        open_ = [group for group in (right, left) if group in free and group not in found]
        for group in open_[1:]:
            found[group] = 0.0
        if open_:
            (other,) = {left, right} - {open_[0]} or {left}
            found[open_[0]] = found.get(total, 0.0) - found.get(other, 0.0)
        rest = found.get(total, 0.0) - found.get(left, 0.0) - found.get(right, 0.0)
        differs = np.abs(rest).max() > 1e-6 * np.abs(found.get(total, 1.0)).max()
        if differs or any(group in scalar and np.ndim(found.get(group, 0.0)) for group in (total, left, right)):
            return found, {total, left, right}
    return found, None


def _is_weighted(layer: Layer) -> bool:
    return layer.type in _WEIGHTED and weighted_inputs(layer) is not None


def _is_passing(layer: Layer) -> bool:
    if layer.type == "ReLU":
        return not layer.real(0)
    if layer.type == "Pooling":
        # A mean over a window that lies within the map.
        return layer.integer(0) == 1 and not any(layer.integer(key) for key in (3, 13, 14, 15))
    return layer.type in _PASSING or layer.type == "Clip"
