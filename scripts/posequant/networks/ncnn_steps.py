"""An ncnn network computed layer by layer, with the time of each."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import thread_time
from typing import Any

import ncnn
import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer, NcnnModel
from posequant.networks.ncnn import load_net, to_mat

Floats = NDArray[np.float32]


class SteppedNetwork:
    """A network that ncnn computes in one piece or layer by layer, on one thread: the same layers in the same order.

    A step asks ncnn for the next blob as it is inside the network, in its own layout and type; nothing is copied, and
    ncnn frees what it has passed. So the steps add up to the whole. Times are the thread's own processor time, which
    other programs on the machine do not add to.

    Attributes:
        names: the layers that the outputs need, in the order in which ncnn computes them.
    """

    def __init__(self, model: NcnnModel, precision: str) -> None:
        """Load a model, `fp32` or `int8`; `InputError` if ncnn refuses it."""
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "model.param"), Path(folder, "model.bin")
            model.write(*files)
            self._net = load_net(*files, precision)
        self._input = next(layer.tops[0] for layer in model.layers if layer.type == "Input")
        self._outputs = _outputs(model.layers)
        order = _order(model.layers, self._outputs)
        self.names = [layer.name for layer in order]
        self._tops = [layer.tops[0] for layer in order]
        # Blobs from the network's own allocator would be copied when they are given out.
        self._allocators = ncnn.PoolAllocator(), ncnn.PoolAllocator()
        for allocator in self._allocators:
            allocator.set_size_compare_ratio(0.0)

    def whole(self, crop: Floats) -> float:
        """Return the seconds that the network takes in one piece for a crop, float32 (3, H, W)."""
        return sum(self._extract(self._given(crop), self._outputs))

    def steps(self, crop: Floats) -> list[float]:
        """Return the seconds that each layer takes, in the order of `names`."""
        return self._extract(self._given(crop), self._tops)

    def packings(self, crop: Floats) -> dict[str, int]:
        """Return how many channels of a layer's output lie beside each other, by the layer's name."""
        extractor, mat, found = self._given(crop), ncnn.Mat(), {}
        for name, blob in zip(self.names, self._tops, strict=True):
            extractor.extract(blob, mat, 1)
            found[name] = int(mat.elempack)
            mat.release()
        return found

    def _given(self, crop: Floats) -> Any:
        return self._with_input(to_mat(crop))

    def _with_input(self, mat: Any) -> Any:
        extractor = self._net.create_extractor()
        extractor.set_blob_allocator(self._allocators[0])
        extractor.set_workspace_allocator(self._allocators[1])
        extractor.input(self._input, mat)
        return extractor

    def _extract(self, extractor: Any, blobs: Sequence[str]) -> list[float]:
        mat = ncnn.Mat()
        times = []
        for blob in blobs:
            start = thread_time()
            status = extractor.extract(blob, mat, 1)
            times.append(thread_time() - start)
            if status != 0 or mat.empty():
                raise InputError(f"ncnn fails to compute blob {blob}.")
            # While anybody else holds a blob, ncnn copies it where it could compute in place.
            mat.release()
        return times


class PackedLayer(SteppedNetwork):
    """One layer without neighbours, whose input comes in the layout that the layer before it would have given."""

    def __init__(self, layer: Layer, weights: dict[str, NDArray[Any]], values: Floats, packing: int) -> None:
        """Load the layer.

        Args:
            layer: the layer, of one input.
            weights: its weights.
            values: its input, (C, H, W); of integers their bits.
            packing: how many channels lie beside each other.
        """
        inputs = Layer("Input", f"{layer.name}_input", (), layer.bottoms, {})
        super().__init__(NcnnModel([inputs, layer], [{}, weights]), "int8")
        self._mat = ncnn.Mat()
        ncnn.convert_packing(to_mat(values), self._mat, packing)

    def seconds(self) -> float:
        """Return the seconds that the layer takes while its input is in the caches, as if it had just been made."""
        self._extract(self._with_input(self._mat), self._tops)
        return sum(self._extract(self._with_input(self._mat), self._tops))


def _outputs(layers: Sequence[Layer]) -> list[str]:
    read = {blob for layer in layers for blob in layer.bottoms}
    outputs = [top for layer in layers for top in layer.tops if top not in read]
    return sorted(outputs, key=lambda name: (len(name), name))


def _order(layers: Sequence[Layer], outputs: Sequence[str]) -> list[Layer]:
    """Return the layers as ncnn computes them: before each layer what it reads, from its first input on."""
    makers = {top: layer for layer in layers for top in layer.tops}
    order: dict[str, Layer] = {}
    waiting = [makers[output] for output in reversed(outputs)]
    while waiting:
        layer = waiting[-1]
        lacking = [makers[blob] for blob in layer.bottoms if makers[blob].name not in order]
        if lacking:
            waiting.append(lacking[0])
            continue
        order.setdefault(layer.name, waiting.pop())
    return [layer for layer in order.values() if layer.type != "Input"]
