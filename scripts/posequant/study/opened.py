"""A user's float network, opened to learn what its file says."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posequant.base.errors import InputError
from posequant.base.files import named_as
from posequant.base.model_spec import ModelSpec
from posequant.base.onnx_files import image_inputs, load_onnx
from posequant.base.supervision import crash_of
from posequant.base.verify import run_onnx
from posequant.export.cut import ends_of
from posequant.export.import_ncnn import Source, read_source, taken_in
from posequant.export.import_onnx import import_onnx
from posequant.ncnn_format.model import Layer
from posequant.networks.base import Network

_CHANNELS = 3


@dataclass(frozen=True)
class Opened:
    """A network that can be run, and what its file says.

    Attributes:
        file: that was opened, for messages.
        settings: the keys of a study's model that name its files and ends.
        spec: takes the network's input and ends; normalisation and codec are yet to be found.
        output_shapes: of each output for one crop.
        network: to run.
        weights: size in bytes of the file of its weights.
    """

    file: Path
    settings: dict[str, Any]
    spec: ModelSpec
    output_shapes: list[tuple[int, ...]]
    network: Network
    weights: int


def open_onnx(onnx: Path) -> Opened:
    """Open a network in an ONNX file, after the same clean-up as in a study.

    Raises:
        InputError: the file is damaged; it has not one input of fixed size, with the channels first; it is quantized.
    """
    from posequant.networks.onnxruntime import OnnxRuntimeNetwork

    _require_channels_first(onnx)
    with tempfile.TemporaryDirectory() as folder:
        cleaned = Path(folder, onnx.name)
        with named_as(cleaned, onnx):
            import_onnx(onnx, cleaned)
            graph = load_onnx(cleaned).graph
            (given,) = image_inputs(graph)
            height, width = [dimension.dim_value for dimension in given.type.tensor_type.shape.dim][2:]
            spec = _spec((width, height), given.name, [value.name for value in graph.output])
            outputs = run_onnx(cleaned, np.zeros((1, *spec.input_shape), np.float32))
            network = OnnxRuntimeNetwork(cleaned, spec)
    shapes = [tuple(output.shape[1:]) for output in outputs]
    return Opened(onnx, {"source": "onnx", "onnx": str(onnx)}, spec, shapes, network, onnx.stat().st_size)


def open_ncnn(source: Source, input_size: tuple[int, int] | None) -> Opened:
    """Open a float network in ncnn's files, taken in as in a study.

    Args:
        source: the files.
        input_size: width and height of the crop; None for those that the file says.

    Raises:
        InputError: as `import_ncnn`; and where the file does not say the size of its input.
    """
    from posequant.networks.ncnn import NcnnNetwork

    layers = read_source(source).layers
    size = input_size or _input_size(layers, source)
    try:
        model = taken_in(source, len(source.outputs or ends_of(layers)[:2])).model
    except InputError as error:  # which speaks of a study's keys
        said = str(error).replace("the key 'outputs'", "--decoded").replace("the key 'input'", "--input")
        raise InputError(said) from error
    shape = (_CHANNELS, size[1], size[0])

    def opened() -> NcnnNetwork:
        return NcnnNetwork.of(model, "fp32", shape)

    with named_as("the network", source.param):
        if crash := crash_of(opened):
            raise InputError(
                f"{source.param}: {crash}. Correct --input-size WIDTH HEIGHT if it is not {size[0]} {size[1]}, name "
                "blobs before that layer by --decoded, or convert the network again with today's tools."
            )
        found = opened().output_shapes
        shapes = [_without_batch(one, 3 if len(found) == 1 else 2) for one in found]
        network = NcnnNetwork.of(model, "fp32", shape, shapes)
    settings: dict[str, Any] = {"source": "ncnn", "param": str(source.param), "bin": str(source.bin)}
    settings |= {"input": source.input} if source.input else {}
    settings |= {"outputs": [*source.outputs]} if source.outputs else {}
    spec = _spec(size, "in0", network.output_names)
    return Opened(source.param, settings, spec, shapes, network, source.bin.stat().st_size)


def _require_channels_first(onnx: Path) -> None:
    """Raise `InputError` where an ONNX network's only input has the channels last."""
    inputs = image_inputs(load_onnx(onnx).graph)
    sizes = [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if len(sizes) != 4 or sizes[1] == _CHANNELS:
        return
    shown = "x".join(str(size or "?") for size in sizes)
    if sizes[3] == _CHANNELS:
        raise InputError(
            f"{onnx}: input '{inputs[0].name}' is {shown}, with the channels last (NHWC), as from TensorFlow. ncnn "
            "takes channels first. Convert the network again as NCHW: tf2onnx has --inputs-as-nchw and "
            "--outputs-as-nchw."
        )
    if sizes[1]:
        raise InputError(
            f"{onnx}: input '{inputs[0].name}' is {shown}, of {sizes[1]} channels. Only networks of colour images, "
            f"with {_CHANNELS}, are supported."
        )


def _input_size(layers: Sequence[Layer], source: Source) -> tuple[int, int]:
    """Return the width and height that the Input layer of an ncnn network says."""
    entries = [layer for layer in layers if layer.type == "Input"]
    size = (entries[0].integer(0), entries[0].integer(1)) if len(entries) == 1 else (0, 0)
    if min(size) < 1:
        raise InputError(
            f"{source.param}: does not say the size of its input. Give --input-size WIDTH HEIGHT, in pixels, as for "
            "the network that it was converted from. Names of files usually have the height first: 256x192 is 192 256."
        )
    return size


def _without_batch(shape: tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    return shape[1:] if len(shape) == dimensions + 1 and shape[0] == 1 else shape


def _spec(input_size: tuple[int, int], input_name: str, output_names: Sequence[str]) -> ModelSpec:
    return ModelSpec(
        name="the network",
        input_size=input_size,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        to_rgb=True,
        padding=1.25,
        use_udp=False,
        codec={"type": "none"},
        flip_mode="heatmap",
        shift_heatmap=False,
        input_name=input_name,
        output_names=tuple(output_names),
    )
