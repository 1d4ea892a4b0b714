"""Drawing of scenes: bodies as labelled parts, painted over a background and then photographed.

A scene is first drawn as a map of labels at twice its size: which part of which body, or which object, each pixel
shows. The map says what is visible; colours, patterns and light are laid over it afterwards. What is drawn, people or
hands, is a `Kind`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from posequant.demo.camera import Array

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]

SCALE = 2  # label pixels per image pixel
LABELS_PER_FIGURE = 24
MAX_FIGURES = 8
FIRST_OBJECT_LABEL = 1 + LABELS_PER_FIGURE * MAX_FIGURES


class Shape(Protocol):
    """A piece of a figure that is drawn at once."""

    @property
    def depth(self) -> float:
        """How near it is, in pixels: nearer shapes are drawn over farther ones."""

    def draw(self, canvas: Labels, first: int) -> None:
        """Draw its labels over `canvas`; `first` is the label of the figure's part 0."""


@dataclass(frozen=True)
class Stroke:
    """The convex hull of discs.

    Attributes:
        part: what it stands for.
        ends: the discs: centre (x, y, depth) and radius in pixels of the image.
        nearer: how much nearer it is taken to be than its discs, in pixels.
    """

    part: int
    ends: tuple[tuple[Array, float], ...]
    nearer: float = 0.0

    @property
    def depth(self) -> float:
        """The mean of its discs' depths, and `nearer`."""
        return sum(float(center[2]) for center, _ in self.ends) / len(self.ends) + self.nearer

    def draw(self, canvas: Labels, first: int) -> None:
        """Fill the hull."""
        _capsule(canvas, self.ends, first + self.part)


@dataclass(frozen=True)
class Figure:
    """A body ready to be drawn.

    Attributes:
        points: projected points of `camera.project`: (x, y, depth) in pixels; the keypoints are among them.
        size: of the whole body, in pixels.
        middle: the point (x, y) by which it is told from others, in pixels.
        shapes: what it is made of.
        averted: the keypoints that no annotator would place, being on the far side of a head.
        behind: the keypoints that their own part hides.
    """

    points: dict[str, Array]
    size: float
    middle: Array
    shapes: tuple[Shape, ...]
    averted: frozenset[str] = frozenset()
    behind: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Looks:
    """The colours of a body.

    Attributes:
        colors: BGR of each part.
        patterns: how strongly a part shows the scene's pattern, where it does.
    """

    colors: Mapping[int, Array]
    patterns: Mapping[int, float]


@dataclass(frozen=True)
class Kind:
    """What a dataset is of: the description of a body, and of the scenes that it is in.

    Attributes:
        name: of the kind, `person` or `hand`.
        plural: of its name.
        keypoints: their names, in the order of annotations.
        skeleton: the pairs of keypoints that a drawing joins by lines, counted from 0.
        carriers: on which parts a keypoint lies: it is visible where one of them is on top.
        sample: draws a pose, proportions and a place in an image of a width and height.
        paint: draws colours.
        widths: of images, in pixels: the least, and the first that is too large.
        heights: the same.
        crowds: how probable it is that one body, two, three, and so on are drawn.
        objects: how probable it is that no object, one, two and so on stand in front.
        apart: the least distance of two bodies' middles, as a share of the larger size.
        min_visible: a body with fewer visible keypoints is not annotated.
    """

    name: str
    plural: str
    keypoints: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    carriers: Mapping[str, set[Any]]
    sample: Callable[[int, int, np.random.Generator], Figure]
    paint: Callable[[np.random.Generator], Looks]
    widths: tuple[int, int]
    heights: tuple[int, int]
    crowds: tuple[float, ...]
    objects: tuple[float, ...]
    apart: float
    min_visible: int


def first_label(number: int) -> int:
    """Return the label of part 0 of the scene's figure of this number."""
    return 1 + LABELS_PER_FIGURE * number


def draw_figure(canvas: Labels, figure: Figure, number: int) -> None:
    """Draw a figure's labels over `canvas` (uint8, SCALE times the image's size), far shapes first."""
    for shape in sorted(figure.shapes, key=lambda shape: shape.depth):
        shape.draw(canvas, first_label(number))


def _capsule(canvas: Labels, ends: Sequence[tuple[Array, float]], label: int) -> None:
    """Fill the convex hull of discs (centre in image pixels, radius in image pixels)."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outline = np.concatenate([SCALE * (center[:2] + radius * ring) for center, radius in ends])
    hull = cv2.convexHull(outline.astype(np.float32))
    # Four fractional bits keep the outline smooth between label pixels.
    cv2.fillConvexPoly(canvas, np.round(hull * 16).astype(np.int32), label, cv2.LINE_8, 4)


def visibility(canvas: Labels, figure: Figure, kind: Kind, number: int) -> NDArray[np.int64]:
    """Return COCO's visibility of the K keypoints on the finished label map, int64 (K,).

    0: outside the image, or on the far side of the head; 1: hidden; 2: visible.
    """
    flags = np.zeros(len(kind.keypoints), np.int64)
    for index, name in enumerate(kind.keypoints):
        x, y, _ = figure.points[name]
        column, row = int(np.floor(SCALE * x)), int(np.floor(SCALE * y))
        if name in figure.averted or not (0 <= column < canvas.shape[1] and 0 <= row < canvas.shape[0]):
            continue
        on_top = canvas[row, column] in {first_label(number) + part for part in kind.carriers[name]}
        flags[index] = 2 if on_top and name not in figure.behind else 1
    return flags


SKINS = np.array(
    [(198, 220, 250), (170, 200, 240), (140, 175, 225), (105, 145, 200), (75, 110, 165), (50, 75, 120), (35, 52, 85)],
    np.float64,
)


def cloth_color(rng: np.random.Generator) -> Array:
    """Draw a garment's colour (BGR), a third of them greys."""
    if rng.random() < 0.35:
        return np.clip(np.full(3, rng.uniform(15, 240)) + rng.normal(0, 6, 3), 0, 255)
    return rng.uniform(10, 245, 3)


def _waves(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return stripes, checks or dots in -1..1, float32 of `shape`."""
    height, width = shape
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 22)
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    wave = np.sin((2 * np.pi / period) * (np.cos(angle) * columns + np.sin(angle) * rows))
    if rng.random() < 0.5:
        wave *= np.sin((2 * np.pi / period) * (np.sin(angle) * columns - np.cos(angle) * rows))
    waves: NDArray[np.float32] = np.clip(3 * wave, -1, 1)
    return waves


def _noise(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return smooth noise of mean 0 and deviation 1 made of `cells` (rows, columns), float32 of `shape`."""
    coarse = rng.standard_normal(cells, dtype=np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def draw_background(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a backdrop (float32 BGR, 0..255, of `shape`): a gradient, a floor, texture and clutter."""
    height, width = shape
    corners = rng.uniform(20, 235, (3, 3, 3)).astype(np.float32)
    corners = corners * 0.5 + rng.uniform(20, 235, 3).astype(np.float32) * 0.5
    image = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.6:
        floor = int(height * rng.uniform(0.45, 0.85))
        image[floor:] = 0.4 * image[floor:] + 0.6 * rng.uniform(20, 220, 3).astype(np.float32)
    for _ in range(int(rng.integers(0, 14))):
        _clutter(image, rng)
    if rng.random() < 0.35:
        image += rng.uniform(5, 30) * _waves(shape, rng)[..., None]
    for cells in (9, 33, 90):
        strength = rng.uniform(0, 9)
        image += strength * _noise(shape, (cells, cells), rng)[..., None]
    return np.asarray(image, np.float32)


def _clutter(image: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Draw one thing of a backdrop: a panel, a blob, a pole, or something like a limb."""
    height, width = image.shape[:2]
    color = cloth_color(rng) if rng.random() < 0.8 else SKINS[rng.integers(len(SKINS))]
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    kind = rng.integers(4)
    if kind == 0:
        corner = (int(x + rng.uniform(10, 90)), int(y + rng.uniform(10, 120)))
        cv2.rectangle(image, (int(x), int(y)), corner, color.tolist(), cv2.FILLED)
    elif kind == 1:
        axes = (int(rng.uniform(4, 45)), int(rng.uniform(4, 45)))
        cv2.ellipse(image, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, color.tolist(), cv2.FILLED, cv2.LINE_AA)
    else:
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(20, 160)
        end = (int(x + length * np.cos(angle)), int(y + length * np.sin(angle)))
        cv2.line(image, (int(x), int(y)), end, color.tolist(), int(rng.uniform(2, 16)), cv2.LINE_AA)


def draw_object(canvas: Labels, label: int, center: Array, size: float, rng: np.random.Generator) -> None:
    """Draw a thing that stands in front: a post, a box, a ball or a shard, about `size` pixels large."""
    kind = rng.integers(4)
    if kind == 0:
        angle = rng.normal(0, 0.25) + (np.pi / 2 if rng.random() < 0.4 else 0.0)
        reach = np.array([np.sin(angle), np.cos(angle)]) * size * rng.uniform(0.8, 3)
        thick = size * rng.uniform(0.05, 0.16)
        _capsule(canvas, [(center - reach, thick), (center + reach, thick)], label)
    elif kind == 1:
        half = size * rng.uniform(0.15, 0.5, 2)
        turn = rotation_2d(rng.normal(0, 0.3))
        square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half @ turn.T + center
        cv2.fillConvexPoly(canvas, np.round(SCALE * square).astype(np.int32), label)
    elif kind == 2:
        _capsule(canvas, [(center, size * rng.uniform(0.15, 0.4))], label)
    else:
        shard = center + size * rng.uniform(-0.6, 0.6, (5, 2))
        hull = cv2.convexHull((SCALE * shard).astype(np.float32))
        cv2.fillConvexPoly(canvas, np.round(hull).astype(np.int32), label)


def rotation_2d(angle: float) -> Array:
    """Return the 2x2 matrix that rotates by `angle` radians."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def colorize(
    canvas: Labels, palette: Image, pattern: NDArray[np.float32], background: Any, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the scene (float32 BGR, 0..255) of a label map laid over its background.

    Args:
        canvas: uint8 (SCALE*H, SCALE*W); label 0 is background.
        palette: uint8 (256, 3), colour of each label.
        pattern: float32 (256,), strength of the pattern on each label.
        background: float32 (H, W, 3).
        rng: source of the pattern and of the shading's strength.
    """
    height, width = background.shape[:2]
    size = (width, height)
    present = np.asarray(cv2.resize((canvas > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA))
    # Each label's colour, premultiplied: label 0 is black.
    paint = cv2.resize(np.take(palette, canvas, axis=0), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    strength = cv2.resize(np.take(pattern, canvas), size, interpolation=cv2.INTER_AREA)
    paint += (strength * _waves((height, width), rng))[..., None]
    # Rounded bodies are darker towards their outline; edges between parts show as creases.
    round_off = cv2.blur(present, (9, 9))
    edges = cv2.resize(
        cv2.morphologyEx(canvas, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)), size, interpolation=cv2.INTER_AREA
    )
    crease = np.minimum(edges.astype(np.float32), 24.0) / 24.0
    paint *= (1 - rng.uniform(0.1, 0.5) * (1 - round_off) - rng.uniform(0.0, 0.3) * crease)[..., None]
    # A soft shadow around what stands in front of the background.
    shadow = 1 - rng.uniform(0, 0.35) * cv2.blur(present, (31, 31))
    return np.asarray(background * (shadow * (1 - present))[..., None] + paint, np.float32)


def photograph(scene: NDArray[np.float32], rng: np.random.Generator) -> tuple[Image, int]:
    """Return the scene as a camera takes it (uint8 BGR) and the JPEG quality to store it with.

    Light from one side, exposure and contrast, a colour cast, defocus or motion blur, and sensor noise.
    """
    height, width = scene.shape[:2]
    slope = rng.normal(0, 0.22, 2)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    light = np.clip(rng.uniform(0.65, 1.2) * (1 + slope[0] * rows + slope[1] * columns), 0.15, 1.8)
    image = scene * light[..., None].astype(np.float32)
    contrast = rng.uniform(0.7, 1.15)
    image = (image - 110) * contrast + 110 + rng.normal(0, 10)
    image *= rng.normal(1, 0.06, 3).astype(np.float32)
    if rng.random() < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:
        length = int(rng.integers(2, 7))
        kernel = np.zeros((9, 9), np.float32)
        shift = length * rotation_2d(rng.uniform(0, np.pi))[0] / 2
        start, end = np.round(4 - shift).astype(int), np.round(4 + shift).astype(int)
        cv2.line(kernel, start.tolist(), end.tolist(), 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    image = image + rng.uniform(0, 8) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.round(image), 0, 255).astype(np.uint8), int(rng.integers(35, 96))
