"""A network's input and output contract, read from its mmpose config, or from an ONNX file and its user's settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.base.onnx_files import image_inputs, load_onnx
from posequant.base.openmmlab import load_config
from posequant.data.codecs import codec_of
from posequant.workflow.settings.export import CropAndCodec

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

# The test transforms, and the arguments of each, that a ModelSpec can express or that change no pixel.
_TRANSFORMS = {
    "LoadImage": {"backend_args"},
    "GetBBoxCenterScale": {"padding"},
    "TopdownAffine": {"input_size", "use_udp"},
    "PackPoseInputs": {"meta_keys"},
}


def describe_mmpose(name: str, config: str | Path) -> ModelSpec:
    """Describe the top-down network of an mmpose config.

    The crop comes from the config's test pipeline, the normalisation from its data_preprocessor, the codec from its
    head's decoder, and the flip test's settings from its test_cfg.

    Args:
        name: the network's name in the study.
        config: path, or name of a config that mmpose ships.

    Raises:
        InputError: the config is missing or broken, or it asks for something that a crop here does not do: another
            transform in its test pipeline, for example. The message names it.
    """
    content = load_config(config, to_build=False)
    model = content.model.to_dict()
    transforms = _test_transforms(config, content.to_dict())
    affine, box = transforms["TopdownAffine"], transforms["GetBBoxCenterScale"]
    preprocessor, test_cfg = model.get("data_preprocessor", {}), model.get("test_cfg") or {}
    input_size = (int(affine["input_size"][0]), int(affine["input_size"][1]))
    divisor = preprocessor.get("pad_size_divisor", 1)
    if any(side % divisor for side in input_size):
        raise InputError(
            f"{config}: pad_size_divisor {divisor} would pad the {input_size} crop; padding is not supported"
        )
    codec = _checked_codec(str(config), model["head"].get("decoder"), input_size)
    return ModelSpec(
        name=name,
        input_size=input_size,
        mean=_channels(f"{config}: data_preprocessor.mean", preprocessor.get("mean") or (0, 0, 0)),
        std=_channels(f"{config}: data_preprocessor.std", preprocessor.get("std") or (1, 1, 1)),
        # Images are read as BGR, and either key swaps the channels.
        to_rgb=bool(preprocessor.get("bgr_to_rgb") or preprocessor.get("rgb_to_bgr")),
        padding=float(box.get("padding", 1.25)),
        use_udp=bool(affine.get("use_udp", False)),
        codec=codec,
        flip_mode=test_cfg.get("flip_mode", "heatmap"),
        shift_heatmap=bool(test_cfg.get("shift_heatmap", False)),
        input_name="input",
        # The names in mmdeploy's own deploy configs (configs/mmpose/pose-detection{,_simcc}_static.py).
        output_names=("simcc_x", "simcc_y") if codec["type"] == "SimCCLabel" else ("output",),
    )


def describe_onnx(name: str, onnx_file: Path, settings: CropAndCodec) -> ModelSpec:
    """Describe a user's ONNX network.

    Args:
        name: the network's name in the study.
        onnx_file: one image input (1, 3, H, W); the outputs that the codec decodes.
        settings: what an ONNX file does not say.

    Raises:
        InputError: mmpose cannot build the codec, or the network's inputs and outputs are not what the settings say.
    """
    model = load_onnx(onnx_file)
    spec = ModelSpec(
        name=name,
        input_size=settings.input_size,
        mean=settings.mean,
        std=settings.std,
        to_rgb=settings.to_rgb,
        padding=settings.padding,
        use_udp=settings.use_udp,
        codec=_checked_codec(name, settings.codec.model_dump(), settings.input_size),
        flip_mode=settings.flip_mode,
        shift_heatmap=settings.shift_heatmap,
        input_name=", ".join(value.name for value in image_inputs(model.graph)),
        output_names=tuple(value.name for value in model.graph.output),
    )
    require_matching_graph(spec, model, onnx_file)
    return spec


def require_matching_graph(spec: ModelSpec, model: "ModelProto", source: Path) -> None:
    """Check the inputs and outputs of an ONNX network against `spec`, as far as it says their shapes.

    Raises:
        InputError: the message names `source`, and what the network has and should have.
    """
    graph = model.graph
    inputs = image_inputs(graph)
    if [value.name for value in inputs] != [spec.input_name] or len(inputs) != 1:
        raise InputError(
            f"{source}: has the inputs {[value.name for value in inputs]}; a network with one image input is needed"
        )
    _require_shape(source, "input", inputs[0], (1, *spec.input_shape))
    expected = [(1, *shape) for shape in spec.output_shapes]
    if len(graph.output) != len(expected):
        raise InputError(
            f"{source}: has {len(graph.output)} outputs {[value.name for value in graph.output]}, where codec "
            f"{spec.codec['type']} decodes {len(expected)}. Choose another codec, or cut the other outputs off."
        )
    for value, shape in zip(graph.output, expected, strict=True):
        _require_shape(source, "output", value, shape)


def _test_transforms(config: str | Path, content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    loader = content.get("test_dataloader") or content.get("val_dataloader") or {}
    transforms = {}
    for transform in loader.get("dataset", {}).get("pipeline", []):
        kind = str(transform["type"]).removeprefix("mmpose.")
        if kind not in _TRANSFORMS:
            raise InputError(
                f"{config}: the test pipeline holds the transform '{kind}'; supported are {', '.join(_TRANSFORMS)}"
            )
        unknown = set(transform) - _TRANSFORMS[kind] - {"type"}
        if unknown:
            raise InputError(f"{config}: the test transform '{kind}' has the unsupported argument '{min(unknown)}'")
        transforms[kind] = transform
    for kind in ("GetBBoxCenterScale", "TopdownAffine"):
        if kind not in transforms:
            raise InputError(f"{config}: the test pipeline lacks the transform '{kind}' of a top-down network")
    return transforms


def _checked_codec(source: str, codec: Any, input_size: tuple[int, int]) -> dict[str, Any]:
    if not isinstance(codec, Mapping) or "type" not in codec:
        raise InputError(f"{source}: names no codec that decodes the output (the decoder of the head)")
    codec_of(codec, input_size, source)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in codec.items()}


def _require_shape(path: Path, role: str, value: "ValueInfoProto", expected: Sequence[int | None]) -> None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return
    # A dimension of 0 here is one that the file leaves free.
    found = [dimension.dim_value for dimension in tensor.shape.dim]
    fits = len(found) == len(expected) and all(
        not size or wanted is None or size == wanted for size, wanted in zip(found, expected, strict=True)
    )
    if not fits:
        shapes = ["x".join(str(size or "?") for size in shape) for shape in (found, expected)]
        raise InputError(
            f"{path}: {role} '{value.name}' is {shapes[0]}, but the model's settings make it {shapes[1]}. "
            "Correct input_size or the codec."
        )


def _channels(source: str, values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise InputError(f"{source} has {len(values)} values; a network on three channels is needed")
    first, second, third = (float(value) for value in values)
    return (first, second, third)
