"""Find where the error of an ncnn INT8 network comes from: each layer alone, and from float to INT8 step by step."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.attribute.pair import Pair, factors_among
from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.measures import measure_for
from posequant.base.model_spec import ModelSpec
from posequant.base.signal import Powers
from posequant.base.verify import versions
from posequant.data.crop_files import People, crop_paths, load_crops
from posequant.evaluate.yardstick import Effect, Yardstick
from posequant.ncnn_format.model import Layer, Weights
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.networks.ncnn_layers import LayerRecord, describe_layers
from posequant.quantize.propagation import Visit, affordable, propagate

Floats = NDArray[np.float32]

# Of what a layer's INT8 weights fill, sign included, where nothing limits them.
FULL_BITS = 8


@dataclass(frozen=True)
class LayerEffect:
    """What one layer of the INT8 network does, alone.

    Attributes:
        local_sqnr_db: of its output, where it gets the float network's input; None where it is as in float.
        output: what becomes of the network's outputs where all other layers are float.
    """

    local_sqnr_db: float | None
    output: Effect


def attribute(
    *,
    param: Path,
    bin_: Path,
    int8_param: Path,
    int8_bin: Path,
    model: Path,
    crops: Path,
    variant: str,
    limit: int,
    threads: int = 1,
) -> dict[str, Any]:
    """Return the content of `attribution.json`. Nothing in it depends on the number of threads.

    Args:
        param: the float network's `.param`.
        bin_: its `.bin`.
        int8_param: the INT8 network's `.param`.
        int8_bin: its `.bin`.
        model: the model description.
        crops: folder of the calibration crops.
        variant: name of the INT8 network.
        limit: on how many crops to measure, the first ones; fewer where memory does not hold as many.
        threads: how many crops are computed at a time.

    Raises:
        InputError: a file is missing or damaged, or they do not belong together.
    """
    if limit < 1 or threads < 1:
        raise InputError(f"asked for {limit} crops on {threads} threads; give at least one of each.")
    spec = ModelSpec.load(model)
    pair = Pair.read(param, bin_, int8_param, int8_bin)
    network = NcnnNetwork(param, bin_, "fp32", spec.input_shape, spec.output_shapes)
    images = load_crops(crops, limit)
    count = affordable(pair.full, network.blob_sizes(), len(images))
    if count < len(images):
        print(f"notice: measured on {count} crops, as many as memory holds", file=sys.stderr)
    images = images[:count]
    full = network.forward_on_threads(images, threads)
    yardstick = Yardstick(spec, People.load(crops)[:count], full)

    int8_network = NcnnNetwork(int8_param, int8_bin, "int8", spec.input_shape, spec.output_shapes)
    records = describe_layers(pair.int8, int8_network)
    int8 = yardstick.measure(int8_network.forward_on_threads(images, threads))
    del int8_network

    alone, weights = measure_layers(pair, network, yardstick, records=records, images=images, threads=threads)
    below = [record.name for record in records if record.bits is not None and record.bits < FULL_BITS]
    in_8_bits = weights if not below else _with_8_bits(pair, yardstick, below, images, threads)
    activations = _activations_only(pair, network, yardstick, images, threads)
    return {
        "model": spec.name,
        "judged_by": measure_for(spec.keypoints.sigmas).loss,
        "variant": variant,
        "crops": count,
        "waterfall": _waterfall(in_8_bits, weights if below else None, int8),
        "activations_only": _step(
            "activations only",
            "the float network, with the inputs of each INT8 layer rounded as in the artifact",
            activations,
        ),
        "layers": _rows(records, alone),
        "sha256": {
            "float": {path.name: sha256(path) for path in (param, bin_)},
            "int8": {path.name: sha256(path) for path in (int8_param, int8_bin)},
            "model": sha256(model),
            "crops": sha256(*crop_paths(crops)[:count], crops / "people.npz"),
        },
        "versions": versions("ncnn", "numpy", "mmpose"),
    }


def measure_layers(
    pair: Pair,
    network: NcnnNetwork,
    yardstick: Yardstick,
    *,
    records: Sequence[LayerRecord],
    images: Floats,
    threads: int,
) -> tuple[dict[str, LayerEffect], Effect]:
    """Put each layer of the INT8 network into the float network, alone.

    On the way the network whose weights alone are those of the INT8 network is computed, too.

    Args:
        pair: both networks.
        network: the float network, loaded.
        yardstick: its outputs.
        records: which layers.
        images: N crops, float32 (N, 3, H, W).
        threads: how many crops are computed at a time.

    Returns:
        The effect of each layer by name, and that of the weights of all layers, in float arithmetic.
    """
    found: dict[str, LayerEffect] = {}
    wanted = {record.name for record in records}

    def quantizer(visit: Visit) -> tuple[Layer, Weights]:
        name, bottoms, (top,) = visit.layer.name, visit.layer.bottoms, visit.layer.tops
        if name in wanted:
            layer = LayerNetwork(*pair.alone(name))

            def compute(index: int) -> tuple[Powers, list[Floats]]:
                (values,) = layer.run(visit.all_inputs[index])
                blobs = {blob: of_crops[index] for blob, of_crops in visit.alive.items() if blob not in bottoms}
                return Powers.of(visit.outputs[index], values), network.resume({**blobs, top: values})

            parts, outputs = zip(*visit.each(compute, range(len(images))), strict=True)
            found[name] = LayerEffect(Powers.total(parts).sqnr_db, yardstick.measure(list(zip(*outputs, strict=True))))
        return pair.dequantized(name)

    outputs = propagate(pair.full, list(images), quantizer, _weighted(pair), threads=threads, title="layers alone")[1]
    return found, yardstick.measure(outputs)


def _with_8_bits(pair: Pair, yardstick: Yardstick, below: Sequence[str], images: Floats, threads: int) -> Effect:
    """Measure the network whose weights alone are rounded to 8 bits, those of the layers `below` anew."""

    def quantizer(visit: Visit) -> tuple[Layer, Weights]:
        name = visit.layer.name
        return pair.in_8_bits(name) if name in below else pair.dequantized(name)

    outputs = propagate(pair.full, list(images), quantizer, _weighted(pair), threads=threads, title="8-bit weights")[1]
    return yardstick.measure(outputs)


def _activations_only(pair: Pair, network: NcnnNetwork, yardstick: Yardstick, images: Floats, threads: int) -> Effect:
    changes: dict[str, Callable[[Floats], Floats]] = {
        blob: partial(pair.rounded_input, layer.name, place=place)
        for layer in pair.int8.layers
        if layer.int8_term
        for place, blob in enumerate(factors_among(layer))
    }
    with ThreadPoolExecutor(threads) as pool:
        outputs = list(pool.map(lambda crop: network.forward_changed(crop, changes), images))
    return yardstick.measure(list(zip(*outputs, strict=True)))


def _weighted(pair: Pair) -> list[str]:
    """Return the names of the layers with weights that have one output."""
    return [
        layer.name
        for layer, weights in zip(pair.int8.layers, pair.int8.weights, strict=True)
        if weights and layer.bottoms and len(layer.tops) == 1
    ]


def _waterfall(in_8_bits: Effect, in_fewer: Effect | None, int8: Effect) -> list[dict[str, Any]]:
    """Return the steps from float to INT8; `in_fewer` is None where no INT8 layer has fewer than 8 bits."""
    anew = "" if in_fewer is None else "; where the artifact has fewer bits, the float weights are rounded anew"
    steps = [
        _step("float", "the FP32 network, to which the others are compared", Effect(None, 0.0, 0.0)),
        _step("weights in 8 bits", f"only weights are rounded, arithmetic is float{anew}", in_8_bits),
    ]
    if in_fewer is not None:
        steps.append(
            _step("weights as in the artifact", "only weights are rounded, to the bits of the artifact", in_fewer)
        )
    return [*steps, _step("INT8 network", "the artifact itself: inputs of the layers are rounded, too", int8)]


def _step(title: str, what: str, effect: Effect) -> dict[str, Any]:
    return {"step": title, "what": what, **asdict(effect)}


def _rows(records: Sequence[LayerRecord], alone: dict[str, LayerEffect]) -> list[dict[str, Any]]:
    """Return what is said of each layer: what it computes with, its work, and its effect alone."""
    macs = sum(record.macs for record in records)
    noise = sum(effect.output.noise for effect in alone.values())
    return [
        {
            "layer": record.name,
            "kernel": record.kernel,
            "stored": record.stored,
            "bits": record.bits,
            "macs": record.macs,
            "macs_share": record.macs / macs,
            "local_sqnr_db": alone[record.name].local_sqnr_db,
            **asdict(alone[record.name].output),
            "noise_share": alone[record.name].output.noise / noise if noise else 0.0,
        }
        for record in records
    ]
