"""One layer of an ncnn network, run by ncnn."""

import os
from collections.abc import Sequence
from tempfile import NamedTemporaryFile

import ncnn
import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer, Weights, encode_weights, format_param
from posequant.networks.ncnn import set_options, to_mat

Floats = NDArray[np.float32]


class LayerNetwork:
    """One layer of a network, run by ncnn on one thread per call; several threads may call it at once."""

    def __init__(self, layer: Layer, weights: Weights, *, packing: bool = True) -> None:
        """Load the layer: in INT8 if it is marked so, else in float32; `packing` is as for `NcnnNetwork`."""
        inputs = [Layer("Input", blob, (), (blob,), {}) for blob in layer.bottoms]
        self._layer = layer
        self._net = ncnn.Net()
        set_options(self._net.opt, "int8" if layer.int8_term else "fp32")
        self._net.opt.use_packing_layout = packing
        if self._net.load_param_mem(format_param([*inputs, layer])) != 0:
            raise InputError(f"ncnn cannot load layer {layer.name} of type {layer.type}; its reason is above.")
        content = encode_weights(layer, weights)
        if not content:
            self._load(os.devnull)
            return
        # From a file: what ncnn's Python module loads from memory it may read again when that is gone.
        with NamedTemporaryFile(suffix=".bin") as file:
            file.write(content)
            file.flush()
            self._load(file.name)

    def run(self, bottoms: Sequence[Floats]) -> list[Floats]:
        """Return what the layer makes of its inputs, float32 arrays.

        Raises:
            InputError: ncnn cannot compute it, or a value is not finite.
        """
        extractor = self._net.create_extractor()
        for blob, values in zip(self._layer.bottoms, bottoms, strict=True):
            extractor.input(blob, to_mat(values))
        tops = []
        for blob in self._layer.tops:
            status, mat = extractor.extract(blob)
            # An array made of an empty Mat is a segmentation fault.
            if status != 0 or mat.empty():
                raise InputError(f"ncnn fails to compute layer {self._layer.name} by itself.")
            tops.append(np.array(mat))
            if not np.isfinite(tops[-1]).all():
                raise InputError(f"layer {self._layer.name} gives NaN or infinity.")
        return tops

    def _load(self, bin_: str) -> None:
        if self._net.load_model(bin_) != 0:
            raise InputError(f"ncnn cannot load the weights of layer {self._layer.name}; its reason is above.")
