"""The camera: from a body's own coordinates to the pixels of an image.

Body coordinates are x to the right of who sees it from the front, y down, z to the front.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """How a body is seen.

    Attributes:
        yaw: the body's turn about the vertical, in radians; 0 is the front view, pi the back view.
        pitch: the camera's look down, in radians.
        roll: rotation in the image plane, in radians.
        size: of the body's unit of length, in pixels.
        center: where the origin of the body's coordinates is, in pixels.
    """

    yaw: float
    pitch: float
    roll: float
    size: float
    center: tuple[float, float]


def rotation(axis: int, angle: float) -> Array:
    """Return the 3x3 matrix that rotates by `angle` radians about coordinate axis 0, 1 or 2."""
    first, second = [i for i in range(3) if i != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def camera(view: View) -> Array:
    """Return the 3x3 rotation from body to camera coordinates: x right, y down, z towards the camera."""
    return rotation(2, view.roll) @ rotation(0, -view.pitch) @ rotation(1, view.yaw)


def project(points: dict[str, Array], view: View) -> dict[str, Array]:
    """Return `points` as (x, y, depth) in pixels, depth growing towards the camera.

    Near parts look a little larger (weak perspective: a camera three units of the body away).
    """
    turn = camera(view)
    projected = {}
    for name, point in points.items():
        if name.endswith("_frame"):
            projected[name] = turn @ point
            continue
        x, y, z = turn @ point
        zoom = view.size / (1 - z / 3)
        projected[name] = np.array([view.center[0] + zoom * x, view.center[1] + zoom * y, view.size * z])
    return projected
