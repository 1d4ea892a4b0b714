"""What a model expects of a crop and how its output is read: the one description that every later step uses."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posequant.base.errors import InputError
from posequant.base.files import read_json, write_json
from posequant.base.keypoints import COCO, KeypointSet


@dataclass(frozen=True)
class ModelSpec:
    """The input and output contract of a top-down pose network.

    Attributes:
        name: the model's name in the study.
        input_size: width and height of the crop in pixels.
        mean: three values subtracted from the channels, in the network's channel order, of pixels in 0..255.
        std: three values the channels are divided by afterwards.
        to_rgb: whether the network takes RGB (images are read as BGR).
        padding: factor by which the box is enlarged before cropping (mmpose: GetBBoxCenterScale.padding).
        use_udp: whether the crop follows unbiased data processing (mmpose: TopdownAffine.use_udp).
        codec: keyword arguments of the mmpose codec that decodes the output, `type` included.
        flip_mode: what a flip test mirrors, as in mmpose's test_cfg: `heatmap`, `udp_combined` or `offset`.
        shift_heatmap: whether a flip test shifts the mirrored heatmap by one pixel (mmpose: test_cfg).
        input_name: name of the input of the exported ONNX.
        output_names: names of its outputs (one heatmap tensor; two for SimCC).
        keypoints: what its output has, in that order.
    """

    name: str
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    to_rgb: bool
    padding: float
    use_udp: bool
    codec: dict[str, Any]
    flip_mode: str
    shift_heatmap: bool
    input_name: str
    output_names: tuple[str, ...]
    keypoints: KeypointSet = COCO

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one crop as the network takes it: channels, height, width."""
        width, height = self.input_size
        return (3, height, width)

    @property
    def output_shapes(self) -> tuple[tuple[int | None, ...], ...]:
        """Shape of each output for one crop, as the codec reads it; None for a size that it does not know."""
        if self.codec["type"] == "SimCCLabel":
            ratio = self.codec.get("simcc_split_ratio", 2.0)
            return tuple((len(self.keypoints), int(side * ratio)) for side in self.input_size)
        if "heatmap_size" in self.codec:
            width, height = self.codec["heatmap_size"]
            planes = 3 if self.codec.get("heatmap_type") == "combined" else 1
            return ((planes * len(self.keypoints), height, width),)
        return ((None, None),)

    def save(self, path: Path) -> None:
        """Write the description as JSON."""
        write_json(path, asdict(self) | {"keypoints": self.keypoints.listed()})

    @classmethod
    def load(cls, path: Path) -> "ModelSpec":
        """Read what `save` wrote; `InputError` if a field is missing or unknown."""
        content = read_json(path)
        try:
            for name in ("input_size", "mean", "std", "output_names"):
                content[name] = tuple(content[name])
            if "keypoints" in content:
                content["keypoints"] = KeypointSet.of(content["keypoints"])
            return cls(**content)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a model description ({error}). Delete it and run again.") from error
