"""Where the time of an ncnn INT8 network goes: each layer in float and in INT8, and what lies between them."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.base.files import sha256
from posequant.base.model_spec import ModelSpec
from posequant.base.processor import this_processor
from posequant.base.timing import order_of_round
from posequant.base.verify import versions
from posequant.ncnn_format.model import ACTIVATION, ACTIVATION_VALUES, Layer, NcnnModel, Weights, array_key
from posequant.ncnn_format.window import Window
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import LayerRecord, describe_layers
from posequant.networks.ncnn_steps import PackedLayer, SteppedNetwork
from posequant.quantize.ncnn2int8 import REQUANTIZED
from posequant.recipe.stem import foldable, folded

Floats = NDArray[np.float32]
Times = NDArray[np.float64]

WARM_UP_ROUNDS = 2
MINIMUM_ROUNDS = 5

TO_INT8 = "conversion to INT8, before a layer"
TO_FLOAT = "conversion of sums to float, behind a layer"
TO_NEXT = "conversion of sums to INT8, for the next layer"
SUMS = "sums and products of two tensors"
UPSAMPLING = "upsampling"
WRITTEN_ANEW = "layers that are written in another way in INT8"
OTHERS = "activations, concatenations and others"
_PARTS = {"BinaryOp": SUMS, "Eltwise": SUMS, "Interp": UPSAMPLING, "PixelShuffle": UPSAMPLING}
CONVERSIONS = (TO_INT8, TO_NEXT, TO_FLOAT)

_QUANTIZED = "_in_int8"
_NEAREST = 1
# A convolution's parameters of its activation, and those of the same in a layer by itself.
_ACTIVATION = {ACTIVATION: 3, array_key(ACTIVATION_VALUES): array_key(4)}


@dataclass(frozen=True)
class LayerTime:
    """What a layer takes for one crop, in milliseconds, on one thread.

    Attributes:
        layer: its name.
        part: of the network's work, one line of the table.
        float_ms: in the float network; None where that has no layer of this name.
        int8_ms: in the INT8 network, with conversions.
        to_int8_ms: that of it which turns a float input into INT8.
        from_sums_ms: that of it which turns the integer sums into the layer's output; None where ncnn does both at a
            time.
        macs: multiply-accumulates.
        int8: whether the layer computes in INT8.
        hands_on: whether its output is INT8, too.
    """

    layer: str
    part: str
    float_ms: float | None
    int8_ms: float
    to_int8_ms: float
    from_sums_ms: float | None
    macs: int
    int8: bool
    hands_on: bool


def measure_times(
    *,
    full: tuple[Path, Path],
    int8: tuple[Path, Path],
    model: Path,
    variant: str,
    crops: Floats,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """Return the content of `layer-times.json`.

    The float network, the INT8 network and their layers are timed in turn, each round on another crop. In the INT8
    network that is timed layer by layer, each conversion of an input to INT8 is a layer of its own; ncnn makes one for
    the moment inside the layer otherwise, with the same bits. What turns sums into a layer's output is timed by itself,
    on numbers of the same count and layout.

    Args:
        full: the float network's `.param` and `.bin`.
        int8: those of the INT8 network.
        model: the model description.
        variant: name of the INT8 network.
        crops: float32 (N, 3, H, W).
        rounds: after how many to stop.
        seconds: after which no further round starts, once `MINIMUM_ROUNDS` are done.

    Raises:
        InputError: a file is missing or damaged, or ncnn cannot compute a network.
    """
    spec = ModelSpec.load(model)
    models = NcnnModel.read(*full), NcnnModel.read(*int8)
    network = NcnnNetwork(*int8, "int8", spec.input_shape, spec.output_shapes)
    records = {record.name: record for record in describe_layers(models[1], network)}
    apart = with_conversions(models[1])
    stepped = SteppedNetwork(models[0], "fp32"), SteppedNetwork(apart, "int8")
    in_one = SteppedNetwork(models[1], "int8")
    behind = dict(_behind(models[1], network, in_one.packings(crops[0]), crops[0]))
    stem = foldable(models[1].layers, spec.input_shape)
    stems = [] if stem is None or not stem.int8_term else _plain_and_folded(models[1], stem.name)

    def of_float(crop: Floats) -> list[float]:
        return [stepped[0].whole(crop), *stepped[0].steps(crop)]

    def of_int8(crop: Floats) -> list[float]:
        return [in_one.whole(crop), *stepped[1].steps(crop)]

    def of_sums(_: Floats) -> list[float]:
        return [layer.seconds() for layer in behind.values()]

    def of_stems(crop: Floats) -> list[float]:
        return [one.whole(crop) for one in stems]

    found = _in_turn([of_float, of_int8, of_sums, of_stems], crops, rounds, seconds)
    (whole_float, *float_ms), (whole_int8, *int8_ms), from_sums, stem_ms = (np.median(times, axis=0) for times in found)
    layers = _layers(
        models[1],
        records,
        float_ms=dict(zip(stepped[0].names, float_ms, strict=True)),
        int8_ms=dict(zip(stepped[1].names, int8_ms, strict=True)),
        from_sums=dict(zip(behind, from_sums, strict=True)),
    )
    sizes = network.blob_sizes()
    return {
        "model": spec.name,
        "variant": variant,
        "cpu": asdict(this_processor()),
        "rounds": len(found[0]),
        "float": _whole(whole_float, float_ms, found[0][:, 0]),
        "int8": _whole(whole_int8, int8_ms, found[1][:, 0]),
        "speedup": float(np.median(found[0][:, 0] / found[1][:, 0])),
        "parts": [*_parts(layers), *_written_anew(layers, dict(zip(stepped[0].names, float_ms, strict=True)))],
        "rewriting": {
            "one_conversion": _one_conversion(models[1], layers),
            "upsampling_behind": _upsampling_behind(models[1], layers, sizes),
            "fold_stem": {
                "layers": [stem.name] if stem and stems else [],
                "ms": float(stem_ms[0] - stem_ms[1]) if stems else 0.0,
            },
        },
        "layers": [asdict(layer) for layer in layers],
        "sha256": {
            "float": {path.name: sha256(path) for path in full},
            "int8": {path.name: sha256(path) for path in int8},
        },
        "versions": versions("ncnn", "numpy"),
    }


def with_conversions(model: NcnnModel) -> NcnnModel:
    """Return an INT8 network in which a layer of its own converts each input to INT8; it gives the same bits.

    Only convolutions are given one; where ncnn hands on INT8 none is needed.
    """
    in_int8: set[str] = set()
    layers: list[Layer] = []
    weights: list[Weights] = []
    for layer, values in zip(model.layers, model.weights, strict=True):
        if layer.type == "Split" and layer.bottoms[0] in in_int8:
            in_int8.update(layer.tops)
        if layer.type.startswith("Convolution") and layer.int8_term and layer.bottoms[0] not in in_int8:
            quantized = f"{layer.bottoms[0]}{_QUANTIZED}"
            layers.append(Layer("Quantize", f"{layer.name}{_QUANTIZED}", layer.bottoms, (quantized,), {0: "1"}))
            weights.append({"scale": values["bottom_scales"]})
            layer = replace(layer, bottoms=(quantized,))
        if layer.int8_term > REQUANTIZED:
            in_int8.update(layer.tops)
        layers.append(layer)
        weights.append(values)
    return NcnnModel(layers, weights)


def _plain_and_folded(model: NcnnModel, name: str) -> list[SteppedNetwork]:
    """Return a network up to its first convolution, called `name`: as it is, and as the step `fold-stem` makes it."""
    count = 1 + next(place for place, layer in enumerate(model.layers) if layer.name == name)
    stem = NcnnModel(model.layers[:count], model.weights[:count])
    return [SteppedNetwork(one, "int8") for one in (stem, folded(stem, name))]


def _behind(
    model: NcnnModel, network: NcnnNetwork, packings: Mapping[str, int], crop: Floats
) -> Iterable[tuple[str, PackedLayer]]:
    """Yield, by the names of the convolutions, what turns their sums into their outputs."""
    convolutions = [layer for layer in model.layers if layer.type == "Convolution" and layer.int8_term]
    maps = network.activations(crop, [layer.tops[0] for layer in convolutions])
    for layer, values in zip(convolutions, maps, strict=True):
        count, each = str(len(values)), np.full(len(values), 1e-3, np.float32)
        if layer.int8_term > REQUANTIZED:
            activation = {ours: layer.params[its] for its, ours in _ACTIVATION.items() if its in layer.params}
            params = {0: count, 1: "1", 2: count, **activation}
            sums = Layer("Requantize", "sums", ("sums",), ("top",), params)
            weights = {"scale_in": each, "scale_out": each[:1], "bias": each}
        else:
            sums = Layer("Dequantize", "sums", ("sums",), ("top",), {0: count, 1: count})
            weights = {"scale": each, "bias": each}
        yield layer.name, PackedLayer(sums, weights, values, packings[layer.name])


def _in_turn(
    works: Sequence[Callable[[Floats], list[float]]], crops: Floats, rounds: int, seconds: float
) -> list[Times]:
    """Return what each of the works says in each round, float64 (R, ...), in milliseconds."""
    for _ in range(WARM_UP_ROUNDS):
        for work in works:
            work(crops[0])
    found: list[list[list[float]]] = [[] for _ in works]
    end = perf_counter() + seconds
    while len(found[0]) < rounds and (len(found[0]) < MINIMUM_ROUNDS or perf_counter() < end):
        number = len(found[0])
        for place in order_of_round(number, len(works)):
            found[place].append(works[place](crops[number % len(crops)]))
    return [1000 * np.array(times) for times in found]


def _layers(
    model: NcnnModel,
    records: Mapping[str, LayerRecord],
    *,
    float_ms: Mapping[str, float],
    int8_ms: Mapping[str, float],
    from_sums: Mapping[str, float],
) -> list[LayerTime]:
    layers = []
    for layer in model.layers:
        if layer.name not in int8_ms:
            continue
        conversion = float(int8_ms.get(f"{layer.name}{_QUANTIZED}", 0.0))
        record = records.get(layer.name)
        layers.append(
            LayerTime(
                layer.name,
                _part(layer, record),
                float(float_ms[layer.name]) if layer.name in float_ms else None,
                float(int8_ms[layer.name]) + conversion,
                conversion,
                float(from_sums[layer.name]) if layer.name in from_sums else None,
                record.macs if record else 0,
                bool(layer.int8_term),
                layer.int8_term > REQUANTIZED,
            )
        )
    return layers


def _part(layer: Layer, record: LayerRecord | None) -> str:
    if record is None:
        return f"INT8 {layer.type}" if layer.int8_term else _PARTS.get(layer.type, OTHERS)
    # Without Winograd's algorithm, as here, all layers of a size have one kernel.
    return f"{'INT8' if layer.int8_term else 'float'} {record.kernel.partition(',')[0]}"


def _parts(layers: Sequence[LayerTime]) -> list[dict[str, Any]]:
    """Return the time of each part of the work: layers with weights, the most time first; conversions; all others."""
    groups: dict[str, list[LayerTime]] = defaultdict(list)
    for layer in layers:
        groups[layer.part].append(layer)
    lines: list[dict[str, Any]] = [
        {
            "part": part,
            "layers": len(group),
            "macs": sum(layer.macs for layer in group),
            "float_ms": sum(layer.float_ms or 0.0 for layer in group),
            "int8_ms": sum(layer.int8_ms - layer.to_int8_ms - (layer.from_sums_ms or 0.0) for layer in group),
        }
        for part, group in groups.items()
    ]
    lines.sort(key=lambda line: (line["macs"] == 0, -line["int8_ms"]))
    kernels = sum(line["macs"] > 0 for line in lines)
    times = {
        TO_INT8: [layer.to_int8_ms for layer in layers if layer.to_int8_ms],
        TO_NEXT: [layer.from_sums_ms for layer in layers if layer.from_sums_ms is not None and layer.hands_on],
        TO_FLOAT: [layer.from_sums_ms for layer in layers if layer.from_sums_ms is not None and not layer.hands_on],
    }
    lines[kernels:kernels] = [
        {"part": part, "layers": len(each), "macs": 0, "float_ms": 0.0, "int8_ms": sum(each)}
        for part, each in times.items()
        if each
    ]
    return lines


def _written_anew(layers: Sequence[LayerTime], float_ms: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the time of what the float network alone has, as one line, none where that is nothing."""
    gone = float_ms.keys() - {layer.layer for layer in layers}
    time = float(sum(float_ms[name] for name in gone))
    line = {"part": WRITTEN_ANEW, "layers": len(gone), "macs": 0, "float_ms": time, "int8_ms": 0.0}
    return [line] if gone else []


def _whole(whole_ms: float, steps_ms: Sequence[float], all_ms: Times) -> dict[str, float]:
    """Return the median time of a network in one piece, its quartiles, and the sum of the layers' medians."""
    first, third = np.percentile(all_ms, [25, 75])
    return {
        "whole_ms": float(whole_ms),
        "first_quartile_ms": float(first),
        "third_quartile_ms": float(third),
        "layers_ms": float(sum(steps_ms)),
    }


def _one_conversion(model: NcnnModel, layers: Sequence[LayerTime]) -> dict[str, Any]:
    """Return which layers convert a tensor that another one converts by the same scale, and what that takes."""
    origins = {top: layer.bottoms[0] for layer in model.layers if layer.type == "Split" for top in layer.tops}
    converting = {layer.layer: layer.to_int8_ms for layer in layers if layer.to_int8_ms}
    groups: dict[tuple[str, float], list[str]] = defaultdict(list)
    for layer, weights in zip(model.layers, model.weights, strict=True):
        if layer.name in converting:
            origin = origins.get(layer.bottoms[0], layer.bottoms[0])
            groups[origin, float(weights["bottom_scales"][0])].append(layer.name)
    again = [name for names in groups.values() for name in names[1:]]
    return {"layers": again, "ms": sum(converting[name] for name in again)}


def _upsampling_behind(model: NcnnModel, layers: Sequence[LayerTime], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return which 1x1 convolutions alone read copies of pixels, and what they would save before these are made.

    A 1x1 convolution and the copying of pixels can change places; the integers are the same.
    """
    readers = {blob: layer for layer in model.layers for blob in layer.bottoms}
    times = {layer.layer: layer.int8_ms for layer in layers}
    found = {}
    for layer in model.layers:
        reader = readers.get(layer.tops[0])
        if layer.type == "Interp" and layer.integer(0) == _NEAREST and reader and _is_pointwise(reader):
            found[reader.name] = times[reader.name] * (1 - sizes[layer.bottoms[0]] / sizes[layer.tops[0]])
    return {"layers": list(found), "ms": sum(found.values())}


def _is_pointwise(layer: Layer) -> bool:
    if layer.type != "Convolution":
        return False
    window = Window.of(layer)
    return window.kernel == window.stride == (1, 1) and not any(window.pads)
