"""From a person's box to what the network sees."""

import numpy as np
from numpy.typing import NDArray

from posequant.base.model_spec import ModelSpec
from posequant.base.openmmlab import make_importable


class Cropper:
    """The test pipeline of a top-down network: mmpose's own transforms, then its normalisation. Thread-safe."""

    def __init__(self, spec: ModelSpec) -> None:
        """Set up the transforms by the model description."""
        make_importable()
        from mmpose.datasets.transforms import GetBBoxCenterScale, TopdownAffine

        self._frame = GetBBoxCenterScale(padding=spec.padding)
        self._warp = TopdownAffine(input_size=spec.input_size, use_udp=spec.use_udp)
        self._channels = slice(None, None, -1 if spec.to_rgb else 1)
        self._mean = np.array(spec.mean, np.float32).reshape(3, 1, 1)
        self._std = np.array(spec.std, np.float32).reshape(3, 1, 1)

    def cut(
        self, image: NDArray[np.uint8], bbox: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """Cut one person out of an image and resize to the network's input.

        Args:
            image: uint8 (height, width, 3), BGR.
            bbox: float32 (4,); left, top, right, bottom in pixels.

        Returns:
            The crop, uint8 (H, W, 3) in BGR, black beyond the border of the image; its centre and its extent (width,
            height) in the image, both float32 (2,) in pixels.
        """
        results = self._warp.transform(self._frame.transform({"img": image, "bbox": bbox[np.newaxis]}))
        return results["img"], results["bbox_center"][0], results["bbox_scale"][0]

    def normalise(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn a crop from `cut` into the network's input, float32 (3, H, W).

        The arithmetic, in float32, is that of mmpose's PoseDataPreprocessor (mmengine's ImgDataPreprocessor).
        """
        channels_first = crop.transpose(2, 0, 1)[self._channels].astype(np.float32, order="C")
        channels_first -= self._mean
        channels_first /= self._std
        return channels_first
