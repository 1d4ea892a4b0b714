"""Quantizing an ONNX network to INT8 by ONNX Runtime's static quantization."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    create_calibrator,
    quant_pre_process,
    quantize_static,
    save_tensors_data,
)
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from posequant.base.errors import InputError
from posequant.base.files import whole
from posequant.base.model_spec import ModelSpec
from posequant.base.onnx_files import is_quantized, load_onnx, open_session, opset_of, save_onnx
from posequant.base.verify import Tensor, compare, hashes, versions
from posequant.data.crop_files import CROPS
from posequant.networks.onnxruntime import OnnxRuntimeNetwork

# All that ONNX Runtime knows to quantize but what it has no integer kernel for: a ConvTranspose would be computed in
# float on quantized values, at a loss for nothing (0.013 AP on SimplePose and COCO).
OPERATORS = sorted({*QDQRegistry, *QLinearOpsRegistry} - {"ConvTranspose"})

AXIS_OPSET = 13


def quantize_onnxruntime(onnx_file: Path, spec: ModelSpec, crops: Tensor, target: Path) -> dict[str, Any]:
    """Quantize a network to INT8, with QuantizeLinear and DequantizeLinear around the operators.

    The same file and crops give the same bytes.

    - Weights: symmetric int8, by output channel. By tensor they cost SimplePose 0.037 AP more.
    - Activations: uint8 with a zero point, as ONNX Runtime recommends for x86. int8 gives the same AP.
    - Ranges: the mean of the crops' least and greatest values. The extremes of all crops cost SimplePose 0.039 AP more,
      ONNX Runtime's entropy method as much (its 128 bins are too coarse to clip anything), the best percentile (99.99)
      0.006 AP more, and percentiles hold the activations of all crops in memory.
    - The operators that make the outputs stay in float. In 256 steps the peak of a heatmap has equals beside it (in 23%
      of SimplePose's heatmaps), and the quarter of a pixel by which decoding moves it is lost: 0.007 AP.

    Args:
        onnx_file: the network in fp32, simplified.
        spec: of the network.
        crops: to calibrate on, float32 (N, 3, H, W).
        target: ONNX file to write.

    Returns:
        The record: number of crops, difference to fp32 on the first of them, versions, sha256.

    Raises:
        InputError: the file is missing or damaged, is quantized already, or ONNX Runtime cannot quantize it.
    """
    reference = OnnxRuntimeNetwork(onnx_file, spec)
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        try:
            quant_pre_process(
                _with_axes(load_onnx(onnx_file, with_weights=True)),
                prepared,
                # For shapes with symbols in them, of which there are none; it would import PyTorch and SymPy.
                skip_symbolic_shape=True,
            )
            quantize_static(
                prepared,
                quantized,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_name_outputs(prepared),
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=_measure_ranges(prepared, _Crops(spec.input_name, crops)),
            )
        except Exception as error:  # its errors share no base class
            raise InputError(f"{onnx_file}: ONNX Runtime cannot quantize the network: {error}") from error
        model = load_onnx(quantized)
    if not is_quantized(model):
        raise InputError(
            f"{onnx_file}: ONNX Runtime finds nothing to quantize in the network. Leave the variant out of the study."
        )
    with whole(target) as draft:
        save_onnx(model, draft)
        network = OnnxRuntimeNetwork(draft, spec, precision="int8")
        difference = compare(reference.forward(crops[:CROPS]), network.forward(crops[:CROPS]))
    return {
        "reference": f"{onnx_file.name} in ONNX Runtime",
        "calibrated_on_crops": len(crops),
        "compared_on_crops": len(crops[:CROPS]),
        "difference": asdict(difference),
        "sha256": hashes(target),
        "versions": versions("onnxruntime", "onnx"),
    }


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    """The crops, one at a time, as ONNX Runtime asks for them."""

    def __init__(self, name: str, crops: Tensor) -> None:
        self._inputs: Iterator[dict[str, Tensor]] = ({name: crop[None]} for crop in crops)

    def get_next(self) -> dict[str, Tensor] | None:
        return next(self._inputs, None)


def _measure_ranges(path: Path, crops: CalibrationDataReader) -> Path:
    """Write the range of each tensor of a network to a file beside it: the mean of the crops' extremes.

    `quantize_static` would measure it itself, but with as many threads as there are processors, on whose number
    ONNX Runtime's rounding depends.
    """
    augmented = path.with_name("augmented.onnx")
    # Despite its name every crop counts the same: it moves only from one collection of crops to the next.
    options = {"moving_average": True}
    calibrator = create_calibrator(path, OPERATORS, augmented, CalibrationMethod.MinMax, extra_options=options)
    calibrator.infer_session = open_session(augmented)
    calibrator.collect_data(crops)
    ranges = path.with_name("ranges.json")
    save_tensors_data(calibrator.compute_data(), ranges)
    return ranges


def _with_axes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network in an operator set in which DequantizeLinear knows an axis, as scales by channel need it."""
    return model if opset_of(model) >= AXIS_OPSET else onnx.version_converter.convert_version(model, AXIS_OPSET)


def _name_outputs(path: Path) -> list[str]:
    """Return the names of the nodes that make the outputs of a network, which gives a name to those that have none."""
    model = load_onnx(path)
    outputs = {value.name for value in model.graph.output}
    nodes = [node for node in model.graph.node if outputs.intersection(node.output)]
    for place, node in enumerate(nodes):
        node.name = node.name or f"output_{place}"
    onnx.save(model, path)
    return [node.name for node in nodes]
