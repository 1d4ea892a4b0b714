"""The step `center`: tensors that are never negative are stored about the middle of their range, exactly in float.

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
from scipy.cluster.hierarchy import DisjointSet

from posequant.ncnn_format.model import Layer, NcnnModel, Weights, is_sum, weighted_inputs
from posequant.quantize.ncnn2int8 import PAD_VALUE, quantized
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
_PADS = (4, 14, 15, 16)


class Storage(NamedTuple):
    """How a tensor x is stored: as `sign * x + shift`."""

    sign: int = 1
    shift: float = 0.0


PLAIN = Storage()


def center(draft: Draft, crops: Sequence[Floats], threads: int, settings: CenterStep) -> Draft:
    """Store what is never negative about the middle of its range, with half the step between two levels.

    The upper end of the range stays where the activation scale has it. Tensors that meet in a sum are stored so that
    the sum comes out right by itself: `(a - x) + (b - y)` is `(a + b) - (x + y)`. A tensor stays as it is where a layer
    that makes or reads it, or another one of the same sum, cannot be changed so.

    Args:
        draft: the draft, with all scales.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time.
        settings: how many of the crops are looked at.
    """
    least: dict[str, float] = {}

    def measure(visit: Visit) -> None:
        least[visit.layer.bottoms[0]] = min(float(values.min()) for values in visit.inputs)

    crops = crops[: settings.crops]
    propagate(draft.reference, crops, measure, draft.names, threads=threads, title="ranges", float_only=True)
    upper = {layer.bottoms[0]: INT8_LIMIT / float(draft.activation_scales[layer.name]) for layer in draft.layers}
    stored = storages(draft.reference.layers, {blob: upper[blob] if least[blob] >= 0 else None for blob in upper})
    scales = {
        layer.name: centered_scale(upper[layer.bottoms[0]], stored[layer.bottoms[0]].shift)
        for layer in draft.layers
        if stored.get(layer.bottoms[0], PLAIN).shift
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


def centered_scale(upper: float, shift: float) -> np.float32:
    """Return the scale of a tensor with values from 0 to `upper` that is stored as `shift` - x; 0 becomes an integer.

    Args:
        upper: the largest value to hold.
        shift: above 0.
    """
    reach = max(shift, upper - shift)
    # The shift has seven digits: what is whole but for the last of them is whole.
    zero = max(1, int(INT8_LIMIT * shift / reach * (1 + 1e-6)))
    scale: np.float32 = representable(np.array([zero / shift], np.float32))[0]
    return scale


def storages(layers: Sequence[Layer], uppers: Mapping[str, float | None]) -> dict[str, Storage]:
    """Return how blobs are to be stored, by name; those that are not named stay as they are.

    Args:
        layers: the network's layers.
        uppers: for each blob that an INT8 layer reads, the largest value to hold; None where it may be negative.
    """
    groups, fixed = _groups(layers)
    sums = [layer for layer in layers if is_sum(layer)]
    signs = DisjointSet(groups)
    for layer in layers:
        if _is_passing(layer) or is_sum(layer):
            for blob in (*layer.bottoms, *layer.tops):
                signs.merge(layer.tops[0], blob)
    plain = {signs[blob] for blob in fixed}

    wanted: dict[str, list[float | None]] = {}
    for blob, upper in uppers.items():
        if signs[blob] not in plain:
            wanted.setdefault(groups[blob], []).append(upper)
    shifts = {group: _middle(found) for group, found in wanted.items() if None not in found}
    shifts = _agreeing(shifts, sums, groups, free=_free(layers, groups))
    shifted = {signs[group] for group, shift in shifts.items() if shift}
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
    bias = bias - before.sign * before.shift * multiplied.sum(axis=1, dtype=np.float64)
    params = {**layer.params, 1 if layer.type == "InnerProduct" else 5: "1"}
    if before.shift and layer.type in _CONVOLUTIONS and any(layer.integer(key) for key in _PADS):
        params[PAD_VALUE] = f"{before.sign * layer.real(PAD_VALUE) + before.shift:e}"
    if after != PLAIN and layer.integer(9):
        low, high = (0.0, _UNBOUNDED) if layer.integer(9) == 1 else layer.reals(10)
        params |= {9: "3", -23310: ",".join(("2", *_written(_clip(low, high, after))))}
    changed = {
        "weight": (rows * (before.sign * after.sign)).ravel(),
        "bias": (after.sign * bias + after.shift).astype(np.float32),
    }
    return replace(layer, params=params), {**weights, **changed}


def _clip(low: float, high: float, storage: Storage) -> tuple[float, float]:
    """Return the bounds of a clip as they are where the values that it clips are stored so."""
    ends = sorted(storage.sign * end + (storage.shift if abs(end) < _UNBOUNDED else 0.0) for end in (low, high))
    return ends[0], ends[1]


def _written(values: Iterable[float]) -> list[str]:
    return [f"{value:e}" for value in values]


def _middle(uppers: Sequence[float | None]) -> float:
    """Return the shift that serves the tensors best, in the mean of the logarithm of their steps.

    Args:
        uppers: the largest value of each. It has six decimals after the first digit, as a `.param` holds it.
    """
    ends = np.array(uppers, np.float64)
    shifts = ends / 2
    reaches = np.maximum(shifts[:, np.newaxis], ends - shifts[:, np.newaxis])
    return float(f"{shifts[np.log(reaches).mean(axis=1).argmin()]:e}")


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
            if layer.integer(9) not in (0, 1, 3):
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
            if layer.integer(9):
                bound.update(layer.tops)
        elif layer.type in ("ReLU", "Clip") or not (_is_passing(layer) or is_sum(layer)):
            bound.update((*layer.bottoms, *layer.tops))
        elif is_sum(layer):
            bound.update(layer.tops)
    return set(groups.values()) - {groups[blob] for blob in bound}


def _agreeing(
    shifts: Mapping[str, float], sums: Sequence[Layer], groups: Mapping[str, str], free: set[str]
) -> dict[str, float]:
    """Return the shifts of all groups that have one, with those left out by which a sum cannot come out right."""
    wanted = dict(shifts)
    while True:
        found, conflict = _solved(wanted, sums, groups, free)
        if conflict is None:
            return found
        if not conflict & wanted.keys():
            # A free group that two sums read serves the first of them only.
            free = free - conflict
        for group in conflict:
            wanted.pop(group, None)


def _solved(
    wanted: Mapping[str, float], sums: Sequence[Layer], groups: Mapping[str, str], free: set[str]
) -> tuple[dict[str, float], set[str] | None]:
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
        if abs(found.get(total, 0.0) - found.get(left, 0.0) - found.get(right, 0.0)) > 1e-6 * abs(
            found.get(total, 1.0)
        ):
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
