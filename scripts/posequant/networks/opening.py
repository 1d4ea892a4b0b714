"""The way to open an artifact in the runtime of its variant."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.networks.base import Network
from posequant.workflow.settings.precisions import PRECISIONS


def open_network(
    backend: str,
    precision: str,
    artifacts: Sequence[Path],
    spec: ModelSpec,
    threads: int = 1,
    *,
    device: str | None = None,
) -> Network:
    """Load the artifact of a variant.

    Args:
        backend: a key of `PRECISIONS`.
        precision: one of its values.
        artifacts: the files that the backend loads: mmpose config and checkpoint; ONNX file; OpenVINO's .xml and
            .bin; ncnn's .param and .bin.
        spec: the input and output contract that the artifact must keep.
        threads: how many threads will call `forward` at the same time.
        device: for `ncnn-vulkan`, the device, as for `find_device`; others run on the CPU.

    Raises:
        InputError: the backend has no such precision; a file is missing, damaged or does not keep the contract; there
            is no such device.
    """
    match backend, precision:
        case "pytorch", "fp32":
            from posequant.networks.pytorch import PytorchNetwork

            config, checkpoint = _one_each(artifacts, "a config", "a checkpoint")
            return PytorchNetwork(config, checkpoint, spec.input_shape)
        case "onnxruntime", "fp32" | "int8":
            from posequant.networks.onnxruntime import OnnxRuntimeNetwork

            (onnx,) = _one_each(artifacts, "an ONNX file")
            return OnnxRuntimeNetwork(onnx, spec, precision)
        case "openvino", "fp32" | "int8":
            from posequant.networks.openvino import OpenVinoNetwork

            xml, weights = _one_each(artifacts, "an .xml file", "a .bin file")
            return OpenVinoNetwork(xml, weights, spec, threads, precision)
        case "ncnn", "fp32" | "fp16" | "bf16" | "int8":
            from posequant.networks.ncnn import NcnnNetwork

            param, weights = _one_each(artifacts, "a .param file", "a .bin file")
            return NcnnNetwork(param, weights, precision, spec.input_shape, spec.output_shapes)
        case "ncnn-vulkan", "fp32" | "fp16" | "int8":
            from posequant.networks.ncnn import NcnnNetwork
            from posequant.networks.vulkan import find_device

            param, weights = _one_each(artifacts, "a .param file", "a .bin file")
            return NcnnNetwork(
                param, weights, precision, spec.input_shape, spec.output_shapes, device=find_device(device)
            )
    offered = "; ".join(f"{name}: {', '.join(precisions)}" for name, precisions in PRECISIONS.items())
    raise InputError(f"backend '{backend}' with precision '{precision}' is not offered. Choose from {offered}")


def device_record(network: Network) -> dict[str, Any] | None:
    """Return what is recorded of a network's device, as by `NcnnNetwork.device_record`; None for the CPU."""
    record = getattr(network, "device_record", None)
    return record() if record else None


def import_runtime(backend: str) -> None:
    """Import the packages of a runtime, so that opening a network of it no longer takes the time for that.

    Args:
        backend: a key of `PRECISIONS`.
    """
    match backend:
        case "pytorch":
            from posequant.base.openmmlab import make_importable
            from posequant.networks import pytorch  # noqa: F401

            make_importable()
            import mmpose.apis
            import mmpose.models  # noqa: F401
        case "onnxruntime":
            from posequant.networks import onnxruntime  # noqa: F401
        case "openvino":
            from posequant.networks import openvino  # noqa: F401
        case "ncnn" | "ncnn-vulkan":
            # Vulkan itself starts with the first network: whoever forks has not started it.
            from posequant.networks import ncnn  # noqa: F401


def _one_each(artifacts: Sequence[Path], *kinds: str) -> Sequence[Path]:
    if len(artifacts) != len(kinds):
        given = ", ".join(map(str, artifacts)) or "nothing"
        raise InputError(f"the backend loads {' and '.join(kinds)}, but was given {given}")
    return artifacts
