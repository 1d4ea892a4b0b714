"""From the output of a network to keypoints in the image.

Each codec is that of mmpose 1.3.2 (codecs/*.py), for all crops at once and without importing it. Tests compare the two.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.keypoints import FLIP_INDICES, NUM_KEYPOINTS
from posequant.base.model_spec import ModelSpec

Floats = NDArray[np.float32]
# Keypoints in pixels of the crop, (N, K, 2), and their scores, (N, K).
Decoded = tuple[NDArray[Any], NDArray[Any]]


class Decoder:
    """Reads a network's output by its codec. Thread-safe."""

    def __init__(self, spec: ModelSpec) -> None:
        """Take the codec of the model description.

        Raises:
            InputError: there is no such codec, a setting of it is missing or makes no sense, or its input_size is not
                the model's.
        """
        self._spec = spec
        codec = dict(spec.codec)
        kind = str(codec.pop("type", None)).removeprefix("mmpose.")
        if kind not in _CODECS:
            raise InputError(f"model {spec.name}: the codec {kind} is not supported; choose from {', '.join(_CODECS)}")
        if tuple(codec.get("input_size", ())) != spec.input_size:
            raise InputError(
                f"model {spec.name}: the codec's input_size {codec.get('input_size')} is not the model's "
                f"{spec.input_size}"
            )
        try:
            self._decode, self._shapes = _CODECS[kind](**codec)
        except (TypeError, ValueError) as error:
            raise InputError(f"model {spec.name}: the codec {kind} does not take these settings: {error}") from error

    def decode(self, outputs: Sequence[Floats], centers: Floats, scales: Floats) -> tuple[Floats, Floats]:
        """Find the keypoints of N crops.

        Args:
            outputs: as `Network.forward` returns them.
            centers: centres of the crops in their images, float32 (N, 2), in pixels.
            scales: their widths and heights there, float32 (N, 2), in pixels.

        Returns:
            Keypoints in pixels of the image, float32 (N, 17, 2), and their scores, float32 (N, 17).

        Raises:
            InputError: the outputs have other shapes than the codec says.
        """
        found = [output.shape[1:] for output in outputs]
        if found != self._shapes:
            raise InputError(
                f"model {self._spec.name}: the network gives {found} for a crop, but its codec "
                f"{self._spec.codec['type']} reads {self._shapes}"
            )
        keypoints, scores = self._decode(*outputs)
        # mmpose 1.3.2, topdown.py, `add_pred_to_datasample`.
        extent, center = scales[:, np.newaxis], centers[:, np.newaxis]
        in_image = keypoints / self._spec.input_size * extent + center - 0.5 * extent
        return in_image.astype(np.float32), scores.astype(np.float32)


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
    inverses = np.linalg.inv(hessians + np.finfo(np.float32).eps * np.eye(2))
    gradients = np.stack([x, y], axis=-1)[..., np.newaxis]
    positions -= np.einsum("ckmn,ckni->ckmi", inverses, gradients)[..., 0]


def blurred(heatmaps: Floats, kernel_size: int) -> Floats:
    """Return heatmaps (N, K, h, w), each blurred by a Gaussian, with zeros around it, to the maximum that it had.

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
        target *= heatmap.max() / target.max()
    return smooth


_Codec = tuple[Callable[..., Decoded], list[tuple[int, ...]]]


def _msra(
    *,
    input_size: Sequence[int],
    heatmap_size: Sequence[int],
    sigma: float,
    unbiased: bool = False,
    blur_kernel_size: int = 11,
) -> _Codec:
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

    return decode, _heatmap_shapes(heatmap_size)


def _udp(
    *,
    input_size: Sequence[int],
    heatmap_size: Sequence[int],
    heatmap_type: str = "gaussian",
    sigma: float = 2.0,
    radius_factor: float = 0.0546875,
    blur_kernel_size: int = 11,
) -> _Codec:
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
            return gaussian, _heatmap_shapes(heatmap_size)
        case "combined":
            return combined, _heatmap_shapes(heatmap_size, planes=3)
    raise ValueError(f"heatmap_type is {heatmap_type!r}, not gaussian or combined")


def _megvii(*, input_size: Sequence[int], heatmap_size: Sequence[int], kernel_size: int) -> _Codec:
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

    return decode, _heatmap_shapes(heatmap_size)


def _simcc(
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
) -> _Codec:
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

    return decode, [(NUM_KEYPOINTS, round(side * simcc_split_ratio)) for side in input_size]


_CODECS: Mapping[str, Callable[..., _Codec]] = {
    "MSRAHeatmap": _msra,
    "UDPHeatmap": _udp,
    "MegviiHeatmap": _megvii,
    "SimCCLabel": _simcc,
}


def _heatmap_shapes(heatmap_size: Sequence[int], planes: int = 1) -> list[tuple[int, ...]]:
    width, height = heatmap_size
    return [(planes * NUM_KEYPOINTS, height, width)]


def _require_odd(kernel_size: int) -> None:
    if kernel_size % 2 != 1:
        raise ValueError(f"the size of a blur must be odd, not {kernel_size}")


def mirror(crops: Floats) -> Floats:
    """Return the crops (N, 3, H, W) mirrored left to right, for a flip test."""
    return np.ascontiguousarray(crops[..., ::-1])


def average_with_mirrored(outputs: Sequence[Floats], mirrored: Sequence[Floats], spec: ModelSpec) -> list[Floats]:
    """Return the mean of a network's outputs for crops and, mirrored back, of those for the mirrored crops.

    Source: mmpose 1.3.2, models/utils/tta.py, `flip_heatmaps` and `flip_vectors`, and `predict` of HeatmapHead and
    SimCCHead.
    """
    if len(mirrored) == 2:
        along_x, along_y = mirrored
        back = [along_x[:, FLIP_INDICES, ::-1], along_y[:, FLIP_INDICES]]
    else:
        back = [_mirrored_back(mirrored[0], spec.flip_mode, spec.shift_heatmap)]
    return [(output + other) * np.float32(0.5) for output, other in zip(outputs, back, strict=True)]


def _mirrored_back(heatmaps: Floats, mode: str, shift: bool) -> Floats:
    """Return heatmaps of mirrored crops as those of the crops; `shift` moves them right by a pixel of the heatmap."""
    # Planes of a keypoint: what is swapped with the other side, and which of them point along x.
    planes, along_x = {"heatmap": (1, None), "udp_combined": (3, 1), "offset": (2, 0)}[mode]
    count, _, height, width = heatmaps.shape
    back = heatmaps.reshape(count, -1, planes, height, width)[:, FLIP_INDICES, ..., ::-1].copy()
    if along_x is not None:
        back[:, :, along_x] *= -1
    if shift:
        back[..., 1:] = back[..., :-1].copy()
    return back.reshape(heatmaps.shape)
