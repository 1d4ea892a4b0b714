"""How networks write keypoints, as heatmaps or as distributions along two sides, and how that is read.

Each codec is that of mmpose 1.3.2 (codecs/*.py), for all crops at once and without importing it. Tests compare the two.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError

Floats = NDArray[np.float32]
Decoded = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Codec:
    """A way to read the outputs of a network.

    Attributes:
        decode: takes its outputs for N crops, and returns keypoints in pixels of the crop, (N, K, 2), and their scores,
            (N, K).
        shapes: of each output, for one crop.
    """

    decode: Callable[..., Decoded]
    shapes: list[tuple[int, ...]]


def codec_of(settings: Mapping[str, Any], input_size: tuple[int, int], owner: str, keypoints: int) -> Codec:
    """Return the codec of a model.

    Args:
        settings: arguments of mmpose's codec, `type` included.
        input_size: width and height of the model's crops.
        owner: whom the codec belongs to, for messages.
        keypoints: how many the model finds.

    Raises:
        InputError: there is no such codec, a setting of it is missing or makes no sense, or its input_size is not the
            model's.
    """
    arguments = dict(settings)
    kind = str(arguments.pop("type", None)).removeprefix("mmpose.")
    if kind not in _CODECS:
        raise InputError(f"{owner}: the codec {kind} is not supported; choose from {', '.join(_CODECS)}")
    try:
        codec = _CODECS[kind](keypoints, **arguments)
    except (TypeError, ValueError) as error:
        reason = str(error).replace(f"{_CODECS[kind].__name__}()", kind)
        raise InputError(f"{owner}: the codec {kind} does not take these settings: {reason}") from error
    if tuple(arguments["input_size"]) != input_size:
        raise InputError(
            f"{owner}: the codec's input_size {list(arguments['input_size'])} is not the crop's {list(input_size)}"
        )
    return codec


def heatmap_maxima(heatmaps: Floats) -> tuple[Floats, Floats]:
    """Return where heatmaps (N, K, h, w) are largest, x and y, float32 (N, K, 2), and their values there, (N, K).

    The place is -1, -1 where no value is above 0. Source: codecs/utils/post_processing.py, `get_heatmap_maximum`.
    """
    count, keypoints, _, width = heatmaps.shape
    flat = heatmaps.reshape(count, keypoints, -1)
    place = flat.argmax(axis=2)
    maxima = np.take_along_axis(flat, place[..., np.newaxis], axis=2)[..., 0]
    positions = np.stack([place % width, place // width], axis=-1).astype(np.float32)
    positions[maxima <= 0] = -1
    return positions, maxima


def refine_by_slope(positions: Floats, heatmaps: Floats) -> None:
    """Move maxima a quarter of a pixel towards the larger neighbour, in place.

    Source: codecs/utils/refinement.py, `refine_keypoints`.
    """
    height, width = heatmaps.shape[2:]
    x, y = np.moveaxis(positions.astype(int), -1, 0)
    # mmpose asks for more distance from the left and upper border than from the others.
    inside = ((x > 1) & (x < width - 1) & (y > 0), (y > 1) & (y < height - 1) & (x > 0))
    for axis, (right, down) in enumerate(((1, 0), (0, 1))):
        crop, keypoint = np.nonzero(inside[axis])
        row, column = y[crop, keypoint], x[crop, keypoint]
        slope = (
            heatmaps[crop, keypoint, row + down, column + right] - heatmaps[crop, keypoint, row - down, column - right]
        )
        positions[crop, keypoint, axis] += np.sign(slope) * np.float32(0.25)


def refine_by_dark(positions: Floats, heatmaps: Floats, blur_kernel_size: int) -> None:
    """Move maxima to the peak of a Gaussian fitted to the blurred heatmap around them, in place.

    Source: Zhang et al., Distribution-Aware Coordinate Representation (DARK), 2020; codecs/utils/refinement.py,
    `refine_keypoints_dark`.
    """
    height, width = heatmaps.shape[2:]
    logs = np.log(np.maximum(blurred(heatmaps, blur_kernel_size), np.float32(1e-10)))
    x, y = np.moveaxis(positions.astype(int), -1, 0)
    crop, keypoint = np.nonzero((x > 1) & (x < width - 2) & (y > 1) & (y < height - 2))
    row, column = y[crop, keypoint], x[crop, keypoint]

    def at(down: int, right: int) -> Floats:
        found: Floats = logs[crop, keypoint, row + down, column + right]
        return found

    half, quarter = np.float32(0.5), np.float32(0.25)
    gradient = np.stack([half * (at(0, 1) - at(0, -1)), half * (at(1, 0) - at(-1, 0))], axis=-1)
    xx = quarter * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
    xy = quarter * (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1))
    yy = quarter * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
    curved = xx * yy - xy**2 != 0
    hessians = np.stack([xx, xy, xy, yy], axis=-1).reshape(-1, 2, 2)[curved]
    offsets = -np.linalg.inv(hessians) @ gradient[curved][..., np.newaxis]
    positions[crop[curved], keypoint[curved]] += offsets[..., 0]


def refine_by_dark_udp(positions: Floats, heatmaps: Floats, blur_kernel_size: int) -> None:
    """Move maxima to the peak of a Gaussian fitted to the blurred heatmap around them, at borders too, in place.

    Source: Huang et al., The Devil is in the Details (UDP), 2020; codecs/utils/refinement.py,
    `refine_keypoints_dark_udp`.
    """
    logs = np.log(blurred(heatmaps, blur_kernel_size).clip(1e-3, 50.0))
    count, keypoints, _, width = logs.shape
    padded = np.pad(logs, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge").reshape(count, -1)
    size = padded.shape[1] // keypoints
    # A maximum that is nowhere, at -1, is in the padding.
    place = positions[..., 0] + 1 + (positions[..., 1] + 1) * (width + 2)
    place = (place + size * np.arange(keypoints)).astype(int)

    def at(down: int, right: int) -> Floats:
        # What lies before the first keypoint is taken from the end, as numpy does.
        return np.take_along_axis(padded, place + (down * (width + 2) + right), axis=1)

    x = np.float32(0.5) * (at(0, 1) - at(0, -1))
    y = np.float32(0.5) * (at(1, 0) - at(-1, 0))
    xx = at(0, 1) - 2 * at(0, 0) + at(0, -1)
    yy = at(1, 0) - 2 * at(0, 0) + at(-1, 0)
    xy = np.float32(0.5) * (at(1, 1) - at(0, 1) - at(1, 0) + at(0, 0) + at(0, 0) - at(0, -1) - at(-1, 0) + at(-1, -1))
    hessians = np.stack([xx, xy, xy, yy], axis=-1).reshape(count, keypoints, 2, 2)
    inverses = _inverses(hessians + np.finfo(np.float32).eps * np.eye(2))
    gradients = np.stack([x, y], axis=-1)[..., np.newaxis]
    positions -= np.einsum("ckmn,ckni->ckmi", inverses, gradients)[..., 0]


def _inverses(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverses of matrices (..., 2, 2); 0 for those that have none, at which mmpose fails."""
    try:
        return np.asarray(np.linalg.inv(matrices), np.float64)
    except np.linalg.LinAlgError:
        inverses = np.zeros_like(matrices)
        for place in np.ndindex(matrices.shape[:-2]):
            with suppress(np.linalg.LinAlgError):
                inverses[place] = np.linalg.inv(matrices[place])
        return inverses


def blurred(heatmaps: Floats, kernel_size: int) -> Floats:
    """Return heatmaps (N, K, h, w), each blurred by a Gaussian, with zeros around it, to the maximum that it had.

    One that is 0 everywhere stays so, and gives no keypoint; mmpose divides by its maximum, and gives NaN.
    Source: codecs/utils/post_processing.py, `gaussian_blur`.
    """
    border = (kernel_size - 1) // 2
    height, width = heatmaps.shape[2:]
    padded = np.zeros((height + 2 * border, width + 2 * border), np.float32)
    inner = (slice(border, border + height), slice(border, border + width))
    smooth = np.empty_like(heatmaps)
    for heatmap, target in zip(heatmaps.reshape(-1, height, width), smooth.reshape(-1, height, width), strict=True):
        padded[inner] = heatmap
        target[:] = cv2.GaussianBlur(padded, (kernel_size, kernel_size), 0)[inner]
        if peak := target.max():
            target *= heatmap.max() / peak
    return smooth


def _msra(
    keypoints: int,
    /,
    *,
    input_size: Sequence[int],
    heatmap_size: Sequence[int],
    sigma: float,
    unbiased: bool = False,
    blur_kernel_size: int = 11,
) -> Codec:
    """Return how to read the heatmaps of codecs/msra_heatmap.py, and their shape."""
    _require_odd(blur_kernel_size)
    pixels = (np.array(input_size) / heatmap_size).astype(np.float32)

    def decode(heatmaps: Floats) -> Decoded:
        positions, scores = heatmap_maxima(heatmaps)
        if unbiased:
            refine_by_dark(positions, heatmaps, blur_kernel_size)
        else:
            refine_by_slope(positions, heatmaps)
        return positions * pixels, scores

    return Codec(decode, _heatmap_shapes(keypoints, heatmap_size))


def _udp(
    keypoints: int,
    /,
    *,
    input_size: Sequence[int],
    heatmap_size: Sequence[int],
    heatmap_type: str = "gaussian",
    sigma: float = 2.0,
    radius_factor: float = 0.0546875,
    blur_kernel_size: int = 11,
) -> Codec:
    """Return how to read the heatmaps of codecs/udp_heatmap.py, and their shape."""
    last = np.array(heatmap_size) - 1

    def gaussian(heatmaps: Floats) -> Decoded:
        positions, scores = heatmap_maxima(heatmaps)
        refine_by_dark_udp(positions, heatmaps, blur_kernel_size)
        return positions / last * input_size, scores

    def combined(planes: Floats) -> Decoded:
        labels, offsets = planes[:, ::3].copy(), np.stack([planes[:, 1::3], planes[:, 2::3]], axis=-1)
        side = 2 * blur_kernel_size + 1
        for label in labels.reshape(-1, *labels.shape[2:]):
            cv2.GaussianBlur(label, (side, side), 0, label)
        positions, scores = heatmap_maxima(labels)
        # The offset of a maximum that is nowhere, at -1, counts from the end: of this keypoint's plane or the last's.
        flat = (offsets * (radius_factor * max(heatmap_size))).reshape(len(labels), -1, 2)
        size = labels.shape[2] * labels.shape[3]
        place = positions[..., 0] + positions[..., 1] * labels.shape[3] + size * np.arange(labels.shape[1])
        positions += np.take_along_axis(flat, place.astype(int)[..., np.newaxis], axis=1)
        return positions / last * input_size, scores

    match heatmap_type:
        case "gaussian":
            _require_odd(blur_kernel_size)
            return Codec(gaussian, _heatmap_shapes(keypoints, heatmap_size))
        case "combined":
            return Codec(combined, _heatmap_shapes(keypoints, heatmap_size, planes=3))
    raise ValueError(f"heatmap_type is {heatmap_type!r}, not gaussian or combined")


def _megvii(keypoints: int, /, *, input_size: Sequence[int], heatmap_size: Sequence[int], kernel_size: int) -> Codec:
    """Return how to read the heatmaps of codecs/megvii_heatmap.py, and their shape."""
    _require_odd(kernel_size)
    pixels = (np.array(input_size) / heatmap_size).astype(np.float32)

    def decode(heatmaps: Floats) -> Decoded:
        smooth = blurred(heatmaps, kernel_size)
        positions, scores = heatmap_maxima(smooth)
        height, width = smooth.shape[2:]
        x, y = np.moveaxis(positions.astype(int), -1, 0)
        crop, keypoint = np.nonzero((x > 1) & (x < width - 1) & (y > 1) & (y < height - 1))
        row, column = y[crop, keypoint], x[crop, keypoint]
        slopes = np.stack(
            [
                smooth[crop, keypoint, row, column + 1] - smooth[crop, keypoint, row, column - 1],
                smooth[crop, keypoint, row + 1, column] - smooth[crop, keypoint, row - 1, column],
            ],
            axis=-1,
        )
        positions[crop, keypoint] += np.sign(slopes) * np.float32(0.25) + np.float32(0.5)
        return positions * pixels, scores / np.float32(255) + np.float32(0.5)

    return Codec(decode, _heatmap_shapes(keypoints, heatmap_size))


def _simcc(
    keypoints: int,
    /,
    *,
    input_size: Sequence[int],
    smoothing_type: str = "gaussian",
    sigma: float | Sequence[float] = 6.0,
    simcc_split_ratio: float = 2.0,
    label_smooth_weight: float = 0.0,
    normalize: bool = True,
    use_dark: bool = False,
    decode_visibility: bool = False,
    decode_beta: float = 150.0,
) -> Codec:
    """Return how to read the two distributions of codecs/simcc_label.py, along x and y, and their shapes.

    The visibility that mmpose may decode beside the scores is left out.
    """
    if use_dark:
        raise ValueError("use_dark of SimCC fails in mmpose 1.3.2 itself where a crop is decoded; leave it out")

    def decode(along_x: Floats, along_y: Floats) -> Decoded:
        positions = np.stack([along_x.argmax(axis=2), along_y.argmax(axis=2)], axis=-1).astype(np.float32)
        scores = np.minimum(along_x.max(axis=2), along_y.max(axis=2))
        positions[scores <= 0] = -1
        return positions / np.float32(simcc_split_ratio), scores

    return Codec(decode, [(keypoints, round(side * simcc_split_ratio)) for side in input_size])


_CODECS: Mapping[str, Callable[..., Codec]] = {
    "MSRAHeatmap": _msra,
    "UDPHeatmap": _udp,
    "MegviiHeatmap": _megvii,
    "SimCCLabel": _simcc,
}


def _heatmap_shapes(keypoints: int, heatmap_size: Sequence[int], planes: int = 1) -> list[tuple[int, ...]]:
    width, height = heatmap_size
    return [(planes * keypoints, height, width)]


def _require_odd(kernel_size: int) -> None:
    if kernel_size % 2 != 1:
        raise ValueError(f"the size of a blur must be odd, not {kernel_size}")
