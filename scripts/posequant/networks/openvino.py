"""OpenVINO."""

import threading
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import require_file
from posequant.base.model_spec import ModelSpec
from posequant.networks.base import join_rows, require_crops, require_input_shape, require_precision


def read_openvino(xml: Path, weights: Path) -> ov.Model:
    """Return the network of an .xml and its .bin; `InputError` if one of them is missing or damaged."""
    require_file(xml)
    require_file(weights)
    try:
        return ov.Core().read_model(xml, weights)
    except RuntimeError as error:
        raise _cannot_load(xml, weights, error) from error


def compile_openvino(model: ov.Model, xml: Path, weights: Path, threads: int) -> ov.CompiledModel:
    """Return what `read_openvino` read of `xml` and `weights`, ready to be run by `threads` threads at a time.

    What is not quantized is computed in float32.
    """
    settings = {
        # Left to itself, OpenVINO computes in bf16 or fp16 wherever the processor can. It says nothing of INT8, which
        # is what lies between the FakeQuantize operators of the network.
        "INFERENCE_PRECISION_HINT": "f32",
        # One stream of one thread for each caller. Pinned to cores, they would ignore who else uses these.
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    try:
        return ov.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise _cannot_load(xml, weights, error) from error


def is_quantized(model: ov.Model) -> bool:
    """Return whether an OpenVINO network computes anything in integers."""
    return any(operator.get_type_name() == "FakeQuantize" for operator in model.get_ops())


def _cannot_load(xml: Path, weights: Path, error: RuntimeError) -> InputError:
    reason = str(error).strip().rpartition("\n")[2]
    return InputError(f"{xml}, {weights}: OpenVINO cannot load them ({reason})")


class OpenVinoNetwork:
    """OpenVINO's .xml and .bin on the CPU, in fp32, or in INT8 where the network is quantized.

    Attributes:
        model: the network as the files have it.
        compiled: what the runtime makes of it.
    """

    def __init__(self, xml: Path, weights: Path, spec: ModelSpec, threads: int, precision: str = "fp32") -> None:
        """Load `xml` and `weights` for use by `threads` threads at a time.

        Raises:
            InputError: a file is missing or damaged, the network is not of the `precision`, or input and outputs are
                not those of `spec`.
        """
        self.model = read_openvino(xml, weights)
        require_precision(xml, precision, is_quantized(self.model))
        self.compiled = compile_openvino(self.model, xml, weights, threads)
        if len(self.compiled.inputs) != 1 or len(self.compiled.outputs) != len(spec.output_names):
            raise InputError(
                f"{xml}: has {len(self.compiled.inputs)} inputs and {len(self.compiled.outputs)} outputs, but the "
                f"model description says 1 and {len(spec.output_names)}"
            )
        shape = [size.get_length() if size.is_static else None for size in self.compiled.input(0).partial_shape]
        require_input_shape(xml, shape, spec.input_shape)
        self._input_shape = spec.input_shape
        self._of_thread = threading.local()
        # OpenVINO's Python module sets itself up in its first inference. Two threads that come first at the same time
        # would each hold what the other waits for (its C++ statics, Python's lock), for ever.
        self.forward(np.zeros((1, *self._input_shape), np.float32))

    def forward(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """See `Network.forward`; the crops go through the network one by one."""
        require_crops(crops, self._input_shape)
        # A request holds the tensors of one inference: each thread has its own.
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self.compiled.create_infer_request()
        request = self._of_thread.request
        rows = []
        for crop in crops:
            results = request.infer([crop[np.newaxis]])
            rows.append([np.array(results[output]) for output in self.compiled.outputs])
        return join_rows(rows)
