"""The codecs that the programs of a package read."""

from dataclasses import dataclass
from typing import Any, Literal

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.data.codecs import codec_of

Kind = Literal["msra", "dark", "udp", "megvii"]


@dataclass(frozen=True)
class Reading:
    """How `pose.py` reads heatmaps.

    Attributes:
        type: the codec's name in mmpose.
        kind: the piece of the template that reads it.
        blur: size of the Gaussian that the heatmaps are blurred by; 0 where they are not.
    """

    type: str
    kind: Kind
    blur: int

    @property
    def in_cpp(self) -> bool:
        """Whether `pose.cpp` reads it, too."""
        return self.kind == "msra"


def reading_of(spec: ModelSpec) -> Reading:
    """Return how the output of a network is read.

    Raises:
        InputError: by a codec that the programs of a package do not have, or that there is not.
    """
    owner = f"model {spec.name}"
    codec_of(spec.codec, spec.input_size, owner, len(spec.keypoints))
    settings: dict[str, Any] = {"blur_kernel_size": 11, **spec.codec}
    name = str(settings["type"]).removeprefix("mmpose.")
    match name, settings:
        case "MSRAHeatmap", {"unbiased": True}:
            return Reading(name, "dark", settings["blur_kernel_size"])
        case "MSRAHeatmap", _:
            return Reading(name, "msra", 0)
        case "UDPHeatmap", {"heatmap_type": "combined"}:
            name = "UDPHeatmap with heatmap_type combined"
        case "UDPHeatmap", _:
            return Reading(name, "udp", settings["blur_kernel_size"])
        case "MegviiHeatmap", _:
            return Reading(name, "megvii", settings["kernel_size"])
    raise InputError(
        f"{owner}: no package can be made: pose.py does not read the codec {name}. It reads MSRAHeatmap, UDPHeatmap "
        "(gaussian) and MegviiHeatmap."
    )
