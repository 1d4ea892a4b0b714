"""Settings of the export, and what an ONNX file does not say about itself."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from posequant.workflow.settings.base import Settings

Channels = Annotated[tuple[float, float, float], Field(strict=False)]
_Positive = Annotated[float, Field(gt=0)]
Deviations = Annotated[tuple[_Positive, _Positive, _Positive], Field(strict=False)]


class Export(Settings):
    """Settings of mmdeploy's deploy config."""

    opset: int = Field(default=11, ge=11, le=17, description="ONNX opset of the export.")
    precision: Literal["FP32", "FP16", "INT8"] = Field(
        default="INT8", description="Precision named in the `backend_config` for ncnn."
    )


class Codec(BaseModel):
    """An mmpose codec: its `type`, and the arguments of its constructor."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    type: str = Field(description="Name of the codec's class, such as `MSRAHeatmap`.")


class CropAndCodec(Settings):
    """How a network's crops are made and its output is decoded."""

    input_size: Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], Field(strict=False)] = Field(
        description="Width and height of the crop.", json_schema_extra={"unit": "pixels"}
    )
    mean: Channels = Field(
        description="Subtracted from the pixels, which are 0 to 255, in the network's channel order.",
        json_schema_extra={"unit": "pixel values"},
    )
    std: Deviations = Field(description="Divides the pixels afterwards.", json_schema_extra={"unit": "pixel values"})
    to_rgb: bool = Field(default=True, description="Whether the network takes RGB; false for BGR.")
    padding: float = Field(default=1.25, ge=1, description="Factor by which the box is enlarged before cropping.")
    use_udp: bool = Field(default=False, description="Whether crops follow unbiased data processing.")
    flip_mode: Literal["heatmap", "udp_combined", "offset"] = Field(
        default="heatmap", description="What a flip test mirrors, as in the `test_cfg` of an mmpose config."
    )
    shift_heatmap: bool = Field(
        default=False, description="Whether a flip test shifts the mirrored heatmap by one pixel, as in the `test_cfg`."
    )
    codec: Codec = Field(
        description=(
            "The mmpose codec that decodes the output, such as "
            "`{type: MSRAHeatmap, input_size: [192, 256], heatmap_size: [48, 64], sigma: 2}`."
        )
    )
