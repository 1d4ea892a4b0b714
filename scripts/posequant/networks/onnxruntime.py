"""ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import require_file
from posequant.base.model_spec import ModelSpec
from posequant.base.onnx_files import is_quantized, load_onnx
from posequant.networks.base import require_crops, require_input_shape, require_precision


def open_session(onnx: Path, optimized: Path | None = None) -> ort.InferenceSession:
    """Return a session of an ONNX file, for callers that bring the threads.

    Args:
        onnx: the file.
        optimized: where to write the graph that is executed in its place.

    Raises:
        InputError: it is missing or no network that ONNX Runtime can run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    require_file(onnx)
    try:
        return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exceptions of onnxruntime share no base class of their own
        reason = str(error).partition("\n")[0]
        raise InputError(f"{onnx}: ONNX Runtime cannot load it ({reason})") from error


class OnnxRuntimeNetwork:
    """An ONNX file on the CPU, in fp32, or in INT8 where its graph quantizes and dequantizes around an operator."""

    def __init__(self, onnx: Path, spec: ModelSpec, precision: str = "fp32") -> None:
        """Load `onnx`.

        Raises:
            InputError: it is no ONNX file, is not of the `precision`, or its input and outputs are not those of `spec`.
        """
        self._session = open_session(onnx)
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
        rows = [self._session.run(self._spec.output_names, {self._spec.input_name: crop[np.newaxis]}) for crop in crops]
        return [np.concatenate(output) for output in zip(*rows, strict=True)]
