"""ONNX Runtime."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.base.onnx_files import is_quantized, load_onnx, open_session
from posequant.networks.base import join_rows, require_crops, require_input_shape, require_precision


class OnnxRuntimeNetwork:
    """An ONNX file on the CPU, in fp32, or in INT8 where its graph quantizes and dequantizes around an operator."""

    def __init__(self, onnx: Path, spec: ModelSpec, precision: str = "fp32", *, optimized: Path | None = None) -> None:
        """Load `onnx`; with `optimized`, write there the graph that the runtime executes in its place.

        Raises:
            InputError: it is no ONNX file, is not of the `precision`, or its input and outputs are not those of `spec`.
        """
        self._session = open_session(onnx, optimized=optimized)
        require_precision(onnx, precision, is_quantized(load_onnx(onnx)))
        inputs = {node.name: node for node in self._session.get_inputs()}
        outputs = {node.name for node in self._session.get_outputs()}
        if list(inputs) != [spec.input_name] or not outputs.issuperset(spec.output_names):
            raise InputError(
                f"{onnx}: has inputs {list(inputs)} and outputs {sorted(outputs)}, but the model description says "
                f"{[spec.input_name]} and {list(spec.output_names)}"
            )
        require_input_shape(onnx, inputs[spec.input_name].shape, spec.input_shape)
        self._spec = spec

    def forward(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """See `Network.forward`; the crops go through the network one by one."""
        require_crops(crops, self._spec.input_shape)
        names, name = self._spec.output_names, self._spec.input_name
        return join_rows([self._session.run(names, {name: crop[np.newaxis]}) for crop in crops])
