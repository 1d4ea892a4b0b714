"""From the output of a network to keypoints in the image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.base.openmmlab import make_importable
from posequant.data.dataset import NUM_KEYPOINTS, flip_indices


class Decoder:
    """Reads a network's output with mmpose's own codec. Thread-safe."""

    def __init__(self, spec: ModelSpec) -> None:
        """Build the codec of the model description; `InputError` if mmpose cannot."""
        make_importable()
        import mmpose.codecs  # noqa: F401  (registers the codecs)
        from mmpose.registry import KEYPOINT_CODECS

        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in spec.codec.items()}
        if settings.get("input_size") != spec.input_size:
            raise InputError(
                f"model {spec.name}: the codec's input_size {settings.get('input_size')} is not the model's "
                f"{spec.input_size}"
            )
        try:
            self._codec = KEYPOINT_CODECS.build(settings)
        except Exception as error:  # whatever a codec makes of its arguments
            raise InputError(f"model {spec.name}: mmpose cannot build the codec {settings}: {error}") from error
        self._spec = spec

    def decode(
        self,
        outputs: Sequence[NDArray[np.float32]],
        centers: NDArray[np.float32],
        scales: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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
        self._require_shapes(outputs)
        keypoints, scores = self._decode_crops(outputs)
        # mmpose 1.3.2, topdown.py, `add_pred_to_datasample`.
        extent, center = scales[:, np.newaxis], centers[:, np.newaxis]
        in_image = keypoints / self._spec.input_size * extent + center - 0.5 * extent
        return in_image.astype(np.float32), scores.astype(np.float32)

    def _decode_crops(self, outputs: Sequence[NDArray[np.float32]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return keypoints in pixels of the crop, (N, 17, 2), and their scores, (N, 17)."""
        if self._spec.codec["type"] == "MSRAHeatmap" and not self._codec.unbiased:
            # The codec loops over keypoints in Python: beside a compact network that counts.
            positions, maxima = refined_maxima(outputs[0])
            return positions * self._codec.scale_factor, maxima
        keypoints, scores = [], []
        for row in zip(*outputs, strict=True):
            positions, confidence = self._codec.decode(*row)
            keypoints.append(positions[0])
            # SimCC may add the visibility of the keypoints.
            scores.append((confidence[0] if isinstance(confidence, tuple) else confidence)[0])
        return np.stack(keypoints), np.stack(scores)

    def _require_shapes(self, outputs: Sequence[NDArray[np.float32]]) -> None:
        found = [output.shape[1:] for output in outputs]
        if hasattr(self._codec, "heatmap_size"):
            width, height = self._codec.heatmap_size
            # UDP's combined targets are a heatmap and two offsets for each keypoint.
            planes = 3 if getattr(self._codec, "heatmap_type", "gaussian") == "combined" else 1
            expected: list[tuple[int, ...]] = [(planes * NUM_KEYPOINTS, height, width)]
        elif hasattr(self._codec, "simcc_split_ratio"):
            lengths = [round(size * self._codec.simcc_split_ratio) for size in self._spec.input_size]
            expected = [(NUM_KEYPOINTS, length) for length in lengths]
        else:
            return
        if found != expected:
            raise InputError(
                f"model {self._spec.name}: the network gives {found} for a crop, but its codec "
                f"{self._spec.codec['type']} reads {expected}"
            )


def refined_maxima(heatmaps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the maxima of heatmaps (N, K, h, w), a quarter of a pixel towards the larger neighbour, and their values.

    Of all crops at once what mmpose 1.3.2 gives of one: refinement.py, `refine_keypoints`.

    Returns:
        Positions x, y in pixels of the heatmap, float32 (N, K, 2), -1 where no value is above 0; values, (N, K).
    """
    make_importable()
    from mmpose.codecs.utils import get_heatmap_maximum

    positions: NDArray[np.float32]
    positions, maxima = get_heatmap_maximum(heatmaps)
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
    return positions, maxima


def mirror(crops: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the crops (N, 3, H, W) mirrored left to right, for a flip test."""
    return np.ascontiguousarray(crops[..., ::-1])


def average_with_mirrored(
    outputs: Sequence[NDArray[np.float32]], mirrored: Sequence[NDArray[np.float32]], spec: ModelSpec
) -> list[NDArray[np.float32]]:
    """Return the mean of a network's outputs for crops and, mirrored back, of those for the mirrored crops.

    Source: mmpose 1.3.2, models/utils/tta.py, and `predict` of HeatmapHead and SimCCHead.
    """
    make_importable()
    import torch
    from mmpose.models.utils.tta import flip_heatmaps, flip_vectors

    tensors = [torch.from_numpy(output) for output in mirrored]
    if len(tensors) == 2:
        back = flip_vectors(*tensors, flip_indices=flip_indices())
    else:
        back = [
            flip_heatmaps(
                tensors[0],
                flip_indices=flip_indices(),
                flip_mode=spec.flip_mode,
                shift_heatmap=spec.shift_heatmap,
            )
        ]
    return [(output + other.numpy()) * np.float32(0.5) for output, other in zip(outputs, back, strict=True)]
