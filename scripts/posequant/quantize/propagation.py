"""Crops taken through an ncnn network layer by layer, all of them at once, as float and as INT8 side by side.

Between two layers everything that flows is at hand: a layer can be quantized for the very inputs that it will get, by
what the float network makes of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posequant.ncnn_format.model import Layer, NcnnModel, Weights
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.ncnn2int8 import stored

# Bytes that the blobs of all crops may take, of the 4 GB that a job may use.
MEMORY = 800_000_000

Floats = NDArray[np.float32]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Visit:
    """A layer on the way, with what reaches it from N crops.

    Attributes:
        layer: the layer.
        weights: its float weights.
        inputs: its input in the float network, N arrays of float32 (C, H, W); the first where it has several.
        all_inputs: all its inputs in the float network, a list for each of the N crops.
        outputs: what the float layer makes of it.
        reached: its input where all layers before it are quantized as they are to be.
        alive: the blobs of the float network that this layer or later ones read, by name.
        each: calls a function with each of some items, on several threads; the results are in the items' order.
    """

    layer: Layer
    weights: Weights
    inputs: list[Floats]
    all_inputs: list[list[Floats]]
    outputs: list[Floats]
    reached: list[Floats]
    alive: dict[str, list[Floats]]
    each: Callable[[Callable[[Item], Result], Iterable[Item]], list[Result]]


Quantizer = Callable[[Visit], tuple[Layer, Weights] | None]
"""Returns the layer to compute with on the quantized way, None for the float layer."""


def propagate(
    model: NcnnModel,
    crops: Sequence[Floats],
    quantizer: Quantizer,
    visited: Iterable[str],
    *,
    threads: int = 1,
    title: str = "layers",
    float_only: bool = False,
    quantized_only: bool = False,
) -> tuple[list[list[Floats]], list[list[Floats]]]:
    """Take crops through a network twice side by side, as float and as quantized, one layer after the other.

    Nothing depends on the number of threads.

    Args:
        model: the float network.
        crops: N crops, float32 (3, H, W).
        quantizer: called for each of the layers `visited`, in the network's order.
        visited: names of layers with one output.
        threads: how many crops are computed at a time.
        title: of the progress bar.
        float_only: leave out the quantized way, for a quantizer that only looks: it saves half of memory and work.
        quantized_only: leave out the float way, for a quantizer that knows it: a visit has only `reached` then.

    Returns:
        The network's outputs, as float and as quantized: one list of N arrays for each output, by name.

    Raises:
        InputError: ncnn cannot compute a layer, or a value is not finite.
    """
    names = set(visited)
    floats: dict[str, list[Floats]] = {}
    reached: dict[str, list[Floats]] = {}
    ways = [reached] if quantized_only else [reached, floats]
    given = list(crops)
    with ThreadPoolExecutor(threads) as pool:

        def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
            return in_shares(function, list(items), threads, pool)

        def through(network: LayerNetwork, layer: Layer, blobs: dict[str, list[Floats]]) -> list[list[Floats]]:
            bottoms = zip(*(blobs[blob] for blob in layer.bottoms), strict=True) if layer.bottoms else [()] * len(crops)
            return [list(values) for values in zip(*each(network.run, bottoms), strict=True)]

        def visit(layer: Layer, weights: Weights, outputs: list[list[Floats]]) -> Visit:
            bottom = layer.bottoms[0]
            if quantized_only:
                return Visit(layer, weights, [], [], [], reached[bottom], {}, each)
            together = [list(values) for values in zip(*(floats[blob] for blob in layer.bottoms), strict=True)]
            return Visit(layer, weights, floats[bottom], together, outputs[0], reached[bottom], floats, each)

        for layer, weights in tqdm(
            list(zip(model.layers, model.weights, strict=True)), desc=title, unit="layer", mininterval=2
        ):
            if layer.type == "Input":
                for blobs in ways:
                    blobs[layer.tops[0]] = given
                continue
            if layer.type == "Split":
                for blobs in ways:
                    values = blobs.pop(layer.bottoms[0])
                    blobs.update(dict.fromkeys(layer.tops, values))
                continue
            network, outputs = None, []
            if not quantized_only:
                network = LayerNetwork(layer, weights)
                outputs = through(network, layer, floats)
            quantized = quantizer(visit(layer, weights, outputs)) if layer.name in names else None
            same = not quantized_only and all(floats[blob] is reached[blob] for blob in layer.bottoms)
            if float_only or (same and quantized is None and not weights):
                others = outputs
            else:
                if quantized or weights or network is None:
                    # Weights that stay float are rounded to float16 in the INT8 model.
                    network = LayerNetwork(*(quantized or (layer, stored(layer, weights))))
                others = through(network, layer, reached)
            for blobs, made in zip(ways, (others, outputs), strict=False):
                for blob in layer.bottoms:
                    del blobs[blob]
                blobs.update(zip(layer.tops, made, strict=True))
    ends = sorted(reached, key=lambda name: (len(name), name))
    return [floats[name] for name in ends if name in floats], [reached[name] for name in ends]


def in_shares(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int, pool: ThreadPoolExecutor
) -> list[Result]:
    """Return what a function makes of each of some items, in their order; each thread takes a share of them.

    To hand items to a pool one by one takes more time than most layers take for a crop.

    Args:
        function: what to call.
        items: what to call it with.
        threads: how many there are; a single one does it by itself.
        pool: where they are.
    """

    def share(first: int) -> list[Result]:
        return [function(item) for item in items[first::threads]]

    if threads == 1:
        return share(0)
    shares = list(pool.map(share, range(threads)))
    return [shares[place % threads][place // threads] for place in range(len(items))]


def affordable(model: NcnnModel, sizes: Mapping[str, int], crops: int, limit: int = MEMORY) -> int:
    """Return how many of `crops` crops `propagate` can take through a network at once, at least one.

    Args:
        model: the network.
        sizes: number of values of each blob for one crop, by name.
        crops: how many there are.
        limit: bytes that all blobs that are held at once may take, float and quantized.
    """
    held: Counter[str] = Counter()
    most = 0
    for layer in model.layers:
        if layer.type == "Split":  # all copies are one array
            held[layer.tops[0]] = held.pop(layer.bottoms[0])
            continue
        held.update({blob: sizes[blob] for blob in layer.tops})
        most = max(most, held.total())
        for blob in layer.bottoms:
            held.pop(blob, None)
    return max(1, min(crops, limit // (2 * 4 * most)))
