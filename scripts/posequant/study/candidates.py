"""What a network may expect of its crops and how its output may be read, as far as its file leaves that open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posequant.base.errors import InputError
from posequant.base.keypoints import COCO, KeypointSet

Triple = tuple[float, float, float]

_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# mmpose's codecs of larger heatmaps have wider peaks: for crops of 384 pixels a sigma of 3, blurred by 17 pixels.
_LARGE = 384
_COMBINED_PLANES = 3


@dataclass(frozen=True)
class Normalisation:
    """What becomes of the pixels of a crop.

    Attributes:
        name: for people.
        mean: subtracted from the channels, in the network's order, of pixels in 0..255.
        std: they are divided by afterwards.
        to_rgb: whether the network takes RGB, not BGR.
    """

    name: str
    mean: Triple
    std: Triple
    to_rgb: bool = True


@dataclass(frozen=True)
class Reading:
    """How crops are cut and outputs are read.

    Attributes:
        name: for people.
        codec: keyword arguments of mmpose's codec, `type` included.
        use_udp: whether crops follow unbiased data processing.
        flip_mode: what a flip test mirrors, as in mmpose's test_cfg.
        shift_heatmap: whether it shifts the mirrored heatmap by a pixel, as there.
        plain: name of the reading of the same heatmaps that this one refines; None where it is none's refinement. Any
            network can be read so: it is a choice of the application's, not a fact about the network.
    """

    name: str
    codec: Mapping[str, Any]
    use_udp: bool = False
    flip_mode: str = "heatmap"
    shift_heatmap: bool = False
    plain: str | None = None


def triple(values: Sequence[float]) -> Triple:
    """Return the values of three channels."""
    first, second, third = values
    return first, second, third


def normalisations() -> list[Normalisation]:
    """Return those that networks have, the most usual first.

    ImageNet's statistics: torchvision, mmpose. -1 to 1: Keras' and TensorFlow's MobileNets. Less the mean: Caffe's
    networks, in BGR. Less a mean, of deviation 1, in 0 to 1: AlphaPose.
    """
    mean, std = _IMAGENET_MEAN, _IMAGENET_STD
    found = [
        Normalisation("ImageNet", mean, std),
        Normalisation("0 to 1", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
        Normalisation("-1 to 1", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
        Normalisation("0 to 255", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        Normalisation("0 to 255, less ImageNet's mean", mean, (1.0, 1.0, 1.0)),
        Normalisation("0 to 1, less ImageNet's mean", mean, (255.0, 255.0, 255.0)),
    ]
    # In BGR, the values of the channels change places with them.
    swapped = [Normalisation(f"{one.name}, BGR", one.mean[::-1], one.std[::-1], to_rgb=False) for one in found]
    return found + swapped


def readings(
    shapes: Sequence[tuple[int, ...]], input_size: tuple[int, int], owner: str, keypoints: KeypointSet = COCO
) -> list[Reading]:
    """Return how outputs of such shapes may be read, the most usual first.

    Args:
        shapes: of the outputs for one crop.
        input_size: width and height of the crop.
        owner: of the outputs, for messages.
        keypoints: that the annotations have.

    Raises:
        InputError: they are no heatmaps and no distributions along two sides of these keypoints; the message says what
            they look like, and what to do.
    """
    count = len(keypoints)
    dimensions = [len(shape) for shape in shapes]
    coordinates = len(shapes) == 1 and shapes[0][-2:] in {(count, 2), (count, 3)}
    if dimensions == [3] and not coordinates:
        return _of_heatmaps(shapes[0], input_size, owner, keypoints)
    if dimensions == [2, 2]:
        return _of_distributions([shapes[0], shapes[1]], input_size, owner, keypoints)
    found = " and ".join("x".join(map(str, shape)) for shape in shapes)
    if len(shapes) > 1 and len(set(shapes)) == 1 and dimensions[0] == 3:
        raise InputError(
            f"{owner}: gives {len(shapes)} sets of heatmaps, {found} for a crop, probably one a stage. Keep the last: "
            "export the network with that as its only output, or name it by --decoded where the network is ncnn's."
        )
    if coordinates:
        raise InputError(
            f"{owner}: gives coordinates, {found} for a crop, not heatmaps. Export the network up to its heatmaps or "
            "SimCC vectors, without what decodes them; a network that regresses coordinates is not supported."
        )
    if len(shapes) == 1 and len(shapes[0]) == 2 and 3 * count + 4 <= min(shapes[0]) <= 3 * count + 90:
        raise InputError(
            f"{owner}: gives {found}, which looks like the boxes and keypoints of all people in an image (YOLO-pose). "
            "Only top-down networks are supported: one person's crop in, heatmaps or SimCC vectors out."
        )
    raise InputError(
        f"{owner}: gives {found} for a crop, which is not read. Export it so that it gives heatmaps (keypoints x "
        "height x width), or the two vectors of SimCC (keypoints x length), along x first."
    )


def _of_heatmaps(
    shape: tuple[int, ...], input_size: tuple[int, int], owner: str, keypoints: KeypointSet
) -> list[Reading]:
    planes, height, width = shape
    plain, combined = len(keypoints), _COMBINED_PLANES * len(keypoints)
    said = "x".join(map(str, shape))
    if planes not in (plain, combined):
        if width in (plain, combined):
            raise InputError(
                f"{owner}: gives {said} for a crop, which has the channels last. Export the network with channels "
                "first (NCHW), as from PyTorch."
            )
        raise InputError(
            f"{owner}: gives {planes} heatmaps for a crop ({said}), where the keypoints of the annotations, "
            f"{keypoints}, make {plain}, or {combined} with offsets. Give annotations of the keypoints that the "
            "network finds."
        )
    if width * input_size[1] != height * input_size[0]:
        raise InputError(
            f"{owner}: gives heatmaps of {width}x{height} (width x height) for crops of "
            f"{input_size[0]}x{input_size[1]}, which have another aspect ratio. Correct --input-size "
            "WIDTH HEIGHT, or export the network again."
        )
    large = max(input_size) >= _LARGE
    sizes = {"input_size": [*input_size], "heatmap_size": [width, height]}
    if planes == combined:
        codec = {"type": "UDPHeatmap", **sizes, "heatmap_type": "combined"}
        return [Reading("UDPHeatmap with offsets", codec, use_udp=True, flip_mode="udp_combined")]
    sigma, blur = (3, 17) if large else (2, 11)
    msra = {"type": "MSRAHeatmap", **sizes, "sigma": sigma}
    dark = msra | {"unbiased": True, "blur_kernel_size": blur}
    udp = {"type": "UDPHeatmap", **sizes, "sigma": sigma, "blur_kernel_size": blur}
    return [
        Reading("MSRAHeatmap", msra, shift_heatmap=True),
        Reading("MSRAHeatmap with DARK", dark, shift_heatmap=True, plain="MSRAHeatmap"),
        Reading("UDPHeatmap", udp, use_udp=True),
        Reading("MegviiHeatmap", {"type": "MegviiHeatmap", **sizes, "kernel_size": blur}, shift_heatmap=True),
    ]


def _of_distributions(
    shapes: Sequence[tuple[int, ...]], input_size: tuple[int, int], owner: str, keypoints: KeypointSet
) -> list[Reading]:
    said = " and ".join("x".join(map(str, shape)) for shape in shapes)
    if any(shape[0] != len(keypoints) for shape in shapes):
        raise InputError(
            f"{owner}: gives two outputs, {said} for a crop, where SimCC of the annotations' keypoints, {keypoints}, "
            "has as many rows in each. Give annotations of the keypoints that the network finds."
        )
    lengths = [shape[1] for shape in shapes]
    ratios = [length / side for length, side in zip(lengths, input_size, strict=True)]
    if ratios[0] != ratios[1]:
        if lengths[1] * input_size[1] == lengths[0] * input_size[0]:
            raise InputError(
                f"{owner}: gives the vectors along y first, {said} for a crop. Export the network with those along x "
                "first, or name both in that order by --decoded where the network is ncnn's."
            )
        raise InputError(
            f"{owner}: gives vectors of {lengths[0]} and {lengths[1]} for crops of {input_size[0]}x{input_size[1]}, "
            "which have another aspect ratio. Correct --input-size WIDTH HEIGHT."
        )
    codec = {"type": "SimCCLabel", "input_size": [*input_size], "simcc_split_ratio": ratios[0]}
    return [Reading("SimCCLabel", codec), Reading("SimCCLabel, UDP crops", codec, use_udp=True)]
