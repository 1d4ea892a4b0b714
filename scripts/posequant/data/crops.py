"""From a person's box to what the network sees."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posequant.base.model_spec import ModelSpec
from posequant.data.dataset import Instances, read_image, require_images

Floats = NDArray[np.float32]


class Cropper:
    """The test pipeline of a top-down network: mmpose's GetBBoxCenterScale and TopdownAffine, then its normalisation.

    Thread-safe. Of mmpose 1.3.2, to the last bit: datasets/transforms/common_transforms.py, `GetBBoxCenterScale`;
    topdown_transforms.py, `TopdownAffine`; structures/bbox/transforms.py, `bbox_xyxy2cs`, `get_warp_matrix` and
    `get_udp_warp_matrix`, all without rotation.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Take the frame of the crop and the normalisation from the model description."""
        self._padding = spec.padding
        self._size = spec.input_size
        self._matrix = udp_warp_matrix if spec.use_udp else warp_matrix
        self._channels = slice(None, None, -1 if spec.to_rgb else 1)
        self._mean = np.array(spec.mean, np.float32).reshape(3, 1, 1)
        self._std = np.array(spec.std, np.float32).reshape(3, 1, 1)

    def frame(self, bboxes: Floats) -> tuple[Floats, Floats]:
        """Return where the crops of boxes (N, 4) lie in their images.

        Returns:
            Their centres and their extents (width, height), both float32 (N, 2) in pixels: the boxes enlarged by the
            padding, and to the aspect ratio of the network's input.
        """
        width, height = self._size
        ratio = width / height
        extents = (bboxes[:, 2:] - bboxes[:, :2]) * self._padding
        centers = (bboxes[:, 2:] + bboxes[:, :2]) * 0.5
        across, along = extents[:, :1], extents[:, 1:]
        wide = across > along * ratio
        extents = np.where(wide, np.hstack([across, across / ratio]), np.hstack([along * ratio, along]))
        return centers, extents

    def matrix(self, center: Floats, extent: Floats) -> NDArray[np.float32] | NDArray[np.float64]:
        """Return the affine matrix (2, 3) that takes the image to the crop that `frame` places."""
        return self._matrix(center, extent, self._size)

    def warp(self, image: NDArray[np.uint8], center: Floats, extent: Floats) -> NDArray[np.uint8]:
        """Return the crop that `frame` places, resized to the network's input; see `cut`."""
        matrix = self.matrix(center, extent)
        return np.asarray(cv2.warpAffine(image, matrix, self._size, flags=cv2.INTER_LINEAR), np.uint8)

    def cut(self, image: NDArray[np.uint8], bbox: Floats) -> tuple[NDArray[np.uint8], Floats, Floats]:
        """Cut one person out of an image and resize to the network's input.

        Args:
            image: uint8 (height, width, 3), BGR.
            bbox: float32 (4,); left, top, right, bottom in pixels.

        Returns:
            The crop, uint8 (H, W, 3) in BGR, black beyond the border of the image; its centre and its extent (width,
            height) in the image, both float32 (2,) in pixels.
        """
        (center,), (extent,) = self.frame(bbox[np.newaxis])
        return self.warp(image, center, extent), center, extent

    def normalise(self, crops: NDArray[np.uint8]) -> Floats:
        """Turn crops from `cut`, (N, H, W, 3), into the network's input, float32 (N, 3, H, W).

        The arithmetic, in float32, is that of mmpose's PoseDataPreprocessor (mmengine's ImgDataPreprocessor).
        """
        channels_first = crops.transpose(0, 3, 1, 2)[:, self._channels].astype(np.float32, order="C")
        channels_first -= self._mean
        channels_first /= self._std
        return channels_first


Crops = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Gives the crops of people, uint8 (N, H, W, 3) in BGR, by their places (N,). Thread-safe."""


def crops_of_images(cropper: Cropper, instances: Instances, folder: Path) -> Crops:
    """Return crops that are cut out of images whenever they are asked for.

    Raises:
        InputError: a file is missing; later, where an image is damaged.
    """
    cv2.setNumThreads(1)  # the threads are the caller's
    require_images(folder, [instances.images[index] for index in np.unique(instances.image_indices)])
    centers, extents = cropper.frame(instances.bboxes)

    def crops(people: NDArray[np.int64]) -> NDArray[np.uint8]:
        cut: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)] * len(people)
        images = instances.image_indices[people]
        for image in dict.fromkeys(images.tolist()):
            pixels = read_image(folder, instances.images[image])
            for place in np.flatnonzero(images == image):
                cut[place] = cropper.warp(pixels, centers[people[place]], extents[people[place]])
        return np.stack(cut)

    return crops


def warp_matrix(center: Floats, extent: Floats, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the affine matrix (2, 3) that takes a frame in the image to a crop of `size` (width, height).

    The middle of the frame's left side comes to the middle of the crop's left side, corner on corner.
    """
    source = np.tile(center, (3, 1))
    source[1, 0] -= extent[0] * np.float32(0.5)
    # The third point makes a right angle at the second.
    source[2] = source[1, 0], source[1, 1] + (source[0, 0] - source[1, 0])
    width, height = size
    target = np.array([(width / 2, height / 2), (0, height / 2), (0, height / 2 + width / 2)], np.float32)
    return np.asarray(cv2.getAffineTransform(source, target), np.float64)


def udp_warp_matrix(center: Floats, extent: Floats, size: tuple[int, int]) -> Floats:
    """Return the affine matrix (2, 3) that takes a frame in the image to a crop of `size`, pixel centre on centre.

    Source: Huang et al., The Devil is in the Details (UDP), 2020.
    """
    scale = (np.array(size, np.float32) - 1) / extent
    matrix = np.zeros((2, 3), np.float32)
    matrix[0, 0], matrix[1, 1] = scale
    matrix[:, 2] = scale * (0.5 * extent - center)
    return matrix
