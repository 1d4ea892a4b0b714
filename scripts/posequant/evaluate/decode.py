"""From the output of a network to keypoints in the image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.data.codecs import codec_of

Floats = NDArray[np.float32]


class Decoder:
    """Reads a network's output by its codec. Thread-safe."""

    def __init__(self, spec: ModelSpec) -> None:
        """Take the codec of the model description; `InputError` as `codec_of`."""
        self._spec = spec
        self._codec = codec_of(spec.codec, spec.input_size, f"model {spec.name}", len(spec.keypoints))

    def decode(self, outputs: Sequence[Floats], centers: Floats, scales: Floats) -> tuple[Floats, Floats]:
        """Find the keypoints of N crops.

        Args:
            outputs: as `Network.forward` returns them.
            centers: centres of the crops in their images, float32 (N, 2), in pixels.
            scales: their widths and heights there, float32 (N, 2), in pixels.

        Returns:
            Keypoints in pixels of the image, float32 (N, K, 2), and their scores, float32 (N, K).

        Raises:
            InputError: the outputs have other shapes than the codec says.
        """
        found = [output.shape[1:] for output in outputs]
        if found != self._codec.shapes:
            raise InputError(
                f"model {self._spec.name}: the network gives {found} for a crop, but its codec "
                f"{self._spec.codec['type']} reads {self._codec.shapes}"
            )
        keypoints, scores = self._codec.decode(*outputs)
        # mmpose 1.3.2, topdown.py, `add_pred_to_datasample`.
        extent, center = scales[:, np.newaxis], centers[:, np.newaxis]
        in_image = keypoints / self._spec.input_size * extent + center - 0.5 * extent
        return in_image.astype(np.float32), scores.astype(np.float32)


def mirror(crops: Floats) -> Floats:
    """Return the crops (N, 3, H, W) mirrored left to right, for a flip test."""
    return np.ascontiguousarray(crops[..., ::-1])


def average_with_mirrored(outputs: Sequence[Floats], mirrored: Sequence[Floats], spec: ModelSpec) -> list[Floats]:
    """Return the mean of a network's outputs for crops and, mirrored back, of those for the mirrored crops.

    Source: mmpose 1.3.2, models/utils/tta.py, `flip_heatmaps` and `flip_vectors`, and `predict` of HeatmapHead and
    SimCCHead.
    """
    partners = spec.keypoints.flip_indices
    if len(mirrored) == 2:
        along_x, along_y = mirrored
        back = [along_x[:, partners, ::-1], along_y[:, partners]]
    else:
        back = [_mirrored_back(mirrored[0], partners, spec.flip_mode, spec.shift_heatmap)]
    return [(output + other) * np.float32(0.5) for output, other in zip(outputs, back, strict=True)]


def _mirrored_back(heatmaps: Floats, partners: tuple[int, ...], mode: str, shift: bool) -> Floats:
    """Return heatmaps of mirrored crops as those of the crops; `shift` moves them right by a pixel of the heatmap."""
    # Planes of a keypoint: what is swapped with the other side, and which of them point along x.
    planes, along_x = {"heatmap": (1, None), "udp_combined": (3, 1), "offset": (2, 0)}[mode]
    count, _, height, width = heatmaps.shape
    back = heatmaps.reshape(count, -1, planes, height, width)[:, partners, ..., ::-1].copy()
    if along_x is not None:
        back[:, :, along_x] *= -1
    if shift:
        back[..., 1:] = back[..., :-1].copy()
    return back.reshape(heatmaps.shape)
