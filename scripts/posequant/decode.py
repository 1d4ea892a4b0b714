"""From the output of a network to keypoints in the image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posequant.dataset import NUM_KEYPOINTS, flip_indices
from posequant.errors import InputError
from posequant.model_spec import ModelSpec
from posequant.openmmlab import make_importable


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
        keypoints, scores = [], []
        for row in zip(*outputs, strict=True):
            positions, confidence = self._codec.decode(*row)
            keypoints.append(positions[0])
            # SimCC may add the visibility of the keypoints.
            scores.append((confidence[0] if isinstance(confidence, tuple) else confidence)[0])
        # mmpose 1.3.2, topdown.py, `add_pred_to_datasample`.
        extent, center = scales[:, np.newaxis], centers[:, np.newaxis]
        in_image = np.stack(keypoints) / self._spec.input_size * extent + center - 0.5 * extent
        return in_image.astype(np.float32), np.stack(scores).astype(np.float32)

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
