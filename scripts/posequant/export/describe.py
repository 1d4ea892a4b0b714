"""A network's input and output contract, read from its mmpose config, or from its user's settings and ONNX file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from posequant.base.errors import InputError
from posequant.base.keypoints import COCO, KeypointSet
from posequant.base.model_spec import ModelSpec
from posequant.base.onnx_files import image_inputs, load_onnx
from posequant.base.openmmlab import load_config
from posequant.data.codecs import codec_of
from posequant.workflow.settings.base import checked
from posequant.workflow.settings.export import Channels, CropAndCodec, Deviations

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_Side = Annotated[int, Field(ge=1)]


class _Preprocessor(BaseModel, allow_inf_nan=False):
    mean: Channels | None = None
    std: Deviations | None = None
    bgr_to_rgb: bool = False
    rgb_to_bgr: bool = False
    pad_size_divisor: _Side = 1


class _TestCfg(BaseModel):
    flip_mode: Literal["heatmap", "udp_combined", "offset"] = "heatmap"
    shift_heatmap: bool = False


class _Head(BaseModel):
    decoder: Any = None
    out_channels: int | None = None


class _Network(BaseModel):
    data_preprocessor: _Preprocessor | None = None
    head: _Head
    test_cfg: _TestCfg | None = None


class _Transform(BaseModel, extra="allow"):
    type: Any


class _Dataset(BaseModel):
    pipeline: list[_Transform] = []


class _Loader(BaseModel):
    dataset: _Dataset = _Dataset()


class _MmposeConfig(BaseModel):
    """What is read of an mmpose config."""

    model: _Network
    test_dataloader: _Loader | None = None
    val_dataloader: _Loader | None = None


class _Box(BaseModel, allow_inf_nan=False):
    padding: float = Field(default=1.25, gt=0)


class _Affine(BaseModel):
    input_size: tuple[_Side, _Side]
    use_udp: bool = False


# The test transforms, and the arguments of each, that a ModelSpec can express or that change no pixel.
_TRANSFORMS = {
    "LoadImage": {"backend_args"},
    "GetBBoxCenterScale": {"padding"},
    "TopdownAffine": {"input_size", "use_udp"},
    "PackPoseInputs": {"meta_keys"},
}


def describe_mmpose(name: str, config: str | Path, keypoints: KeypointSet = COCO) -> ModelSpec:
    """Describe the top-down network of an mmpose config.

    The crop comes from the config's test pipeline, the normalisation from its data_preprocessor, the codec from its
    head's decoder, and the flip test's settings from its test_cfg.

    Args:
        name: the network's name in the study.
        config: path, or name of a config that mmpose ships.
        keypoints: of the study's dataset; the network must have as many.

    Raises:
        InputError: the config is missing or broken, or it asks for something that a crop here does not do: another
            transform in its test pipeline, for example. The message names it.
    """
    content = checked(_MmposeConfig, load_config(config, to_build=False).to_dict(), what=str(config))
    model, transforms = content.model, _test_transforms(config, content)
    affine = checked(_Affine, transforms["TopdownAffine"], what=str(config), prefix="TopdownAffine.")
    box = checked(_Box, transforms["GetBBoxCenterScale"], what=str(config), prefix="GetBBoxCenterScale.")
    preprocessor, test_cfg = model.data_preprocessor or _Preprocessor(), model.test_cfg or _TestCfg()
    input_size, divisor = affine.input_size, preprocessor.pad_size_divisor
    if any(side % divisor for side in input_size):
        raise InputError(
            f"{config}: pad_size_divisor {divisor} would pad the {input_size} crop; padding is not supported"
        )
    codec = _checked_codec(str(config), model.head.decoder, input_size, keypoints)
    spec = ModelSpec(
        name=name,
        input_size=input_size,
        mean=preprocessor.mean or (0.0, 0.0, 0.0),
        std=preprocessor.std or (1.0, 1.0, 1.0),
        # Images are read as BGR, and either key swaps the channels.
        to_rgb=preprocessor.bgr_to_rgb or preprocessor.rgb_to_bgr,
        padding=box.padding,
        use_udp=affine.use_udp,
        codec=codec,
        flip_mode=test_cfg.flip_mode,
        shift_heatmap=test_cfg.shift_heatmap,
        input_name="input",
        # The names in mmdeploy's own deploy configs (configs/mmpose/pose-detection{,_simcc}_static.py).
        output_names=("simcc_x", "simcc_y") if codec["type"] == "SimCCLabel" else ("output",),
        keypoints=keypoints,
    )
    channels, expected = model.head.out_channels, spec.output_shapes[0][0]
    if None not in (channels, expected) and channels != expected:
        raise _other_keypoints(f"{config}: model.head.out_channels is {channels}", expected, keypoints)
    return spec


def describe_onnx(name: str, onnx_file: Path, settings: CropAndCodec, keypoints: KeypointSet = COCO) -> ModelSpec:
    """Describe a user's ONNX network.

    Args:
        name: the network's name in the study.
        onnx_file: one image input (1, 3, H, W); the outputs that the codec decodes.
        settings: what an ONNX file does not say.
        keypoints: of the study's dataset; the network must have as many.

    Raises:
        InputError: mmpose cannot build the codec, or the network's inputs and outputs are not what the settings say.
    """
    model = load_onnx(onnx_file)
    spec = _spec(
        name,
        settings,
        ", ".join(value.name for value in image_inputs(model.graph)),
        tuple(value.name for value in model.graph.output),
        keypoints,
    )
    require_matching_graph(spec, model, onnx_file)
    return spec


def describe_ncnn(name: str, settings: CropAndCodec, keypoints: KeypointSet = COCO) -> ModelSpec:
    """Describe a user's ncnn network as it is once it is taken in.

    Args:
        name: the network's name in the study.
        settings: what ncnn's files do not say.
        keypoints: of the study's dataset; the network must have as many.

    Raises:
        InputError: the settings make no codec.
    """
    spec = _spec(name, settings, "in0", ("out0",), keypoints)
    return replace(spec, output_names=tuple(f"out{place}" for place in range(len(spec.output_shapes))))


def _spec(
    name: str, settings: CropAndCodec, input_name: str, output_names: tuple[str, ...], keypoints: KeypointSet
) -> ModelSpec:
    return ModelSpec(
        name=name,
        input_size=settings.input_size,
        mean=settings.mean,
        std=settings.std,
        to_rgb=settings.to_rgb,
        padding=settings.padding,
        use_udp=settings.use_udp,
        codec=_checked_codec(name, settings.codec.model_dump(), settings.input_size, keypoints),
        flip_mode=settings.flip_mode,
        shift_heatmap=settings.shift_heatmap,
        input_name=input_name,
        output_names=output_names,
        keypoints=keypoints,
    )


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
        found = _shape_of(value)
        if found and len(found) == len(shape) and found[1] and shape[1] and found[1] != shape[1]:
            raise _other_keypoints(f"{source}: output '{value.name}' has {found[1]} channels", shape[1], spec.keypoints)
        _require_shape(source, "output", value, shape)


def _other_keypoints(found: str, expected: int | None, keypoints: KeypointSet) -> InputError:
    whose = "COCO's" if keypoints == COCO else f"the set {keypoints.name}'s"
    return InputError(
        f"{found}, where {whose} {len(keypoints)} keypoints make {expected} with this codec. A network is scored on "
        "annotations of its own keypoints: name their set in the study's dataset.keypoints."
    )


def _test_transforms(config: str | Path, content: _MmposeConfig) -> dict[str, Mapping[str, Any]]:
    loader = content.test_dataloader or content.val_dataloader or _Loader()
    transforms: dict[str, Mapping[str, Any]] = {}
    for transform in (one.model_dump() for one in loader.dataset.pipeline):
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


def _checked_codec(source: str, codec: Any, input_size: tuple[int, int], keypoints: KeypointSet) -> dict[str, Any]:
    if not isinstance(codec, Mapping) or "type" not in codec:
        raise InputError(f"{source}: names no codec that decodes the output (the decoder of the head)")
    try:
        codec_of(codec, input_size, source, len(keypoints))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise InputError(f"{source}: the settings of the codec {codec['type']} make no sense: {error}") from error
    return {key: list(value) if isinstance(value, tuple) else value for key, value in codec.items()}


def _require_shape(path: Path, role: str, value: "ValueInfoProto", expected: Sequence[int | None]) -> None:
    found = _shape_of(value)
    if found is None:
        return
    fits = len(found) == len(expected) and all(
        not size or wanted is None or size == wanted for size, wanted in zip(found, expected, strict=True)
    )
    if not fits:
        shapes = ["x".join(str(size or "?") for size in shape) for shape in (found, expected)]
        raise InputError(
            f"{path}: {role} '{value.name}' is {shapes[0]}, but the model's settings make it {shapes[1]}. "
            "Correct input_size or the codec."
        )


def _shape_of(value: "ValueInfoProto") -> list[int] | None:
    """Return the shape of an input or output, 0 where the file leaves a size free; None where it says no shape."""
    tensor = value.type.tensor_type
    return [dimension.dim_value for dimension in tensor.shape.dim] if tensor.HasField("shape") else None
