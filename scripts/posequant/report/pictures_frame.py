"""The part of an image that shows a person, and where the image's points lie in it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LONGER_SIDE = 320
"""Of a photograph, in its own pixels."""

# Around the person on each side, as a share of the longer side; and the least extent, in pixels of the image.
_MARGIN, _LEAST = 0.08, 8


@dataclass(frozen=True)
class Frame:
    """A rectangle of whole pixels of an image, and the photograph that is made of it.

    Points of both are continuous: 0 is the left or upper border of the first pixel, 0.5 its middle.

    Attributes:
        left, top, right, bottom: in pixels of the image; inside it.
        size: width and height of the photograph, in its own pixels; the longer one is `LONGER_SIDE`.
    """

    left: int
    top: int
    right: int
    bottom: int
    size: tuple[int, int]

    @classmethod
    def around(cls, points: Floats, image_size: tuple[int, int]) -> "Frame":
        """Return the frame of some points (N, 2) with a margin, as far as it is inside the image (width, height)."""
        low, high = points.min(axis=0), points.max(axis=0)
        margin = _MARGIN * (high - low).max()
        limits = np.array(image_size)
        start = np.clip(np.floor(low - margin), 0, np.maximum(limits - _LEAST, 0)).astype(int)
        end = np.clip(np.ceil(high + margin), np.minimum(start + _LEAST, limits), limits).astype(int)
        extent = end - start
        width, height = np.maximum(np.rint(extent * (LONGER_SIDE / extent.max())), 1).astype(int).tolist()
        (left, top), (right, bottom) = start.tolist(), end.tolist()
        return cls(left, top, right, bottom, (width, height))

    @property
    def scale(self) -> float:
        """How many pixels of the image one of the photograph is, along the longer side."""
        return max(self.right - self.left, self.bottom - self.top) / LONGER_SIDE

    def photograph(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the photograph, uint8 (height, width, 3), of an image in the same form."""
        part = pixels[self.top : self.bottom, self.left : self.right]
        method = cv2.INTER_AREA if self.scale > 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(part, self.size, interpolation=method), np.uint8)

    def place(self, points: NDArray[np.floating]) -> Floats:
        """Return where points (..., 2) of the image lie in the photograph, float64 (..., 2)."""
        extent = np.array([self.right - self.left, self.bottom - self.top])
        places: Floats = (points.astype(np.float64) - (self.left, self.top)) * (np.array(self.size) / extent)
        return places
