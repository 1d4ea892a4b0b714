"""Drawing of scenes: people as labelled parts, painted over a background and then photographed.

A scene is first drawn as a map of labels at twice its size: which part of which person, or which object, each pixel
shows. The map says what is visible; colours, patterns and light are laid over it afterwards.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posequant.base.keypoints import KEYPOINTS
from posequant.demo.skeleton import HEAD_POINTS, HEAD_RADIUS, SIDES, Array, Build

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]

SCALE = 2  # label pixels per image pixel
LABELS_PER_PERSON = 24
MAX_PEOPLE = 8
FIRST_OBJECT_LABEL = 1 + LABELS_PER_PERSON * MAX_PEOPLE


class Part(IntEnum):
    """What a label inside a person stands for."""

    TORSO = 0
    NECK = 1
    FACE = 2
    HAIR = 3
    EYE = 4
    MOUTH = 5
    NOSE = 6
    LEFT_EAR = 7
    RIGHT_EAR = 8
    LEFT_UPPER_ARM = 9
    RIGHT_UPPER_ARM = 10
    LEFT_FOREARM = 11
    RIGHT_FOREARM = 12
    LEFT_HAND = 13
    RIGHT_HAND = 14
    LEFT_THIGH = 15
    RIGHT_THIGH = 16
    LEFT_SHIN = 17
    RIGHT_SHIN = 18
    LEFT_FOOT = 19
    RIGHT_FOOT = 20
    CHEST = 21
    LEFT_SLEEVE = 22
    RIGHT_SLEEVE = 23


HEAD_PARTS = {Part.FACE, Part.HAIR, Part.EYE, Part.MOUTH, Part.NOSE}

# On what a keypoint lies: it is visible where one of these parts of its own person is on top.
CARRIERS: dict[str, set[Part]] = {
    "nose": HEAD_PARTS, "left_eye": HEAD_PARTS, "right_eye": HEAD_PARTS,
    "left_ear": {Part.LEFT_EAR, *HEAD_PARTS}, "right_ear": {Part.RIGHT_EAR, *HEAD_PARTS},
    "left_shoulder": {Part.TORSO, Part.CHEST, Part.LEFT_UPPER_ARM, Part.LEFT_SLEEVE},
    "right_shoulder": {Part.TORSO, Part.CHEST, Part.RIGHT_UPPER_ARM, Part.RIGHT_SLEEVE},
    "left_elbow": {Part.LEFT_UPPER_ARM, Part.LEFT_SLEEVE, Part.LEFT_FOREARM},
    "right_elbow": {Part.RIGHT_UPPER_ARM, Part.RIGHT_SLEEVE, Part.RIGHT_FOREARM},
    "left_wrist": {Part.LEFT_FOREARM, Part.LEFT_HAND}, "right_wrist": {Part.RIGHT_FOREARM, Part.RIGHT_HAND},
    "left_hip": {Part.TORSO, Part.LEFT_THIGH}, "right_hip": {Part.TORSO, Part.RIGHT_THIGH},
    "left_knee": {Part.LEFT_THIGH, Part.LEFT_SHIN}, "right_knee": {Part.RIGHT_THIGH, Part.RIGHT_SHIN},
    "left_ankle": {Part.LEFT_SHIN, Part.LEFT_FOOT}, "right_ankle": {Part.RIGHT_SHIN, Part.RIGHT_FOOT},
}  # fmt: skip

# The least cosine between the direction to the camera and that to a point of the head at which the point is labelled:
# COCO's annotators place no far eye in a profile and no nose on the back of a head.
FACING = {"nose": -0.15, "left_eye": 0.0, "right_eye": 0.0, "left_ear": -0.2, "right_ear": -0.2}


@dataclass(frozen=True)
class Figure:
    """A person ready to be drawn.

    Attributes:
        points: projected points of `skeleton.project`: (x, y, depth) in pixels.
        build: the body's proportions.
        height: body height in pixels.
        long_hair: whether hair falls to the neck.
        short_sleeves: whether the forearms are bare.
    """

    points: dict[str, Array]
    build: Build
    height: float
    long_hair: bool
    short_sleeves: bool


def person_label(person: int, part: Part) -> int:
    """Return the label of a part of the scene's person number `person`."""
    return 1 + LABELS_PER_PERSON * person + part


def _capsule(canvas: Labels, ends: list[tuple[Array, float]], label: int) -> None:
    """Fill the convex hull of discs (centre in image pixels, radius in image pixels)."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outline = np.concatenate([SCALE * (center[:2] + radius * ring) for center, radius in ends])
    hull = cv2.convexHull(outline.astype(np.float32))
    # Four fractional bits keep the outline smooth between label pixels.
    cv2.fillConvexPoly(canvas, np.round(hull * 16).astype(np.int32), label, cv2.LINE_8, 4)


def _head(canvas: Labels, figure: Figure, person: int) -> None:
    """Draw the head as a ball on whose visible half the face, the hair and the features lie."""
    radius = HEAD_RADIUS * figure.build.head * figure.height
    x, y, _ = SCALE * figure.points["head"]
    reach = SCALE * radius
    left, right = int(max(0, x - reach - 1)), int(min(canvas.shape[1], x + reach + 2))
    top, bottom = int(max(0, y - reach - 1)), int(min(canvas.shape[0], y + reach + 2))
    if left >= right or top >= bottom:
        return
    across = (np.arange(left, right) - x)[None, :] / reach
    down = (np.arange(top, bottom) - y)[:, None] / reach
    square = across**2 + down**2
    toward = np.sqrt(np.clip(1 - square, 0, 1))
    frame = figure.points["head_frame"]

    def closeness(direction: tuple[float, float, float]) -> Array:
        """Cosine between each pixel's surface normal and a direction in the head's frame."""
        px, py, pz = frame @ (np.array(direction) / np.linalg.norm(direction))
        cosine: Array = across * px + down * py + toward * pz
        return cosine

    region = canvas[top:bottom, left:right]
    inside = square <= 1
    hair = closeness((0.0, -0.62, -0.78)) > -0.12
    region[inside] = person_label(person, Part.FACE)
    region[inside & hair] = person_label(person, Part.HAIR)
    bare = inside & ~hair
    for name in ("left_eye", "right_eye"):
        region[bare & (closeness(HEAD_POINTS[name]) > 0.978)] = person_label(person, Part.EYE)
    mouth = (np.abs(closeness((1.0, 0.0, 0.0))) < 0.32) & (np.abs(closeness((0.0, 1.0, 0.0)) - 0.55) < 0.1)
    region[bare & mouth & (closeness((0.0, 0.0, 1.0)) > 0)] = person_label(person, Part.MOUTH)


def draw_person(canvas: Labels, figure: Figure, person: int) -> None:
    """Draw a person's labels over `canvas` (uint8, SCALE times the image's size), far parts first."""
    points, height = figure.points, figure.height
    wide = figure.build.girth * height
    head = HEAD_RADIUS * figure.build.head * height
    strokes: list[tuple[float, list[tuple[Array, float]], Part]] = []

    def stroke(part: Part, *ends: tuple[Array, float], nearer: float = 0.0) -> None:
        depth = sum(float(center[2]) for center, _ in ends) / len(ends)
        strokes.append((depth + nearer * height, list(ends), part))

    shoulders = [points[f"{side}_shoulder"] for side in SIDES]
    hips = [points[f"{side}_hip"] for side in SIDES]
    middle = (hips[0] + hips[1]) / 2
    neck = points["neck"]
    chest = [0.8 * shoulder + 0.2 * (0.7 * neck + 0.3 * middle) for shoulder in shoulders]
    stroke(Part.TORSO, *[(p, 0.052 * wide) for p in chest], *[(p, 0.062 * wide) for p in hips])
    nape = 0.45 * neck + 0.55 * points["head"]
    stroke(Part.NECK, (neck, 0.03 * height), (nape, 0.03 * height), nearer=-0.02)
    # An open jacket or a print: a strip on the front of the chest that the back does not have.
    frame = points["chest_frame"]
    front = frame[:, 2]
    if front[2] > 0.1:
        out = 0.05 * wide * front
        stroke(
            Part.CHEST,
            (0.85 * neck + 0.15 * middle + out, 0.022 * wide * front[2]),
            (0.35 * neck + 0.65 * middle + out, 0.03 * wide * front[2]),
            nearer=0.02,
        )
    for side in SIDES:
        name = side.upper()
        shoulder, elbow, wrist = (points[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
        hip, knee, ankle = (points[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
        upper_arm = Part[f"{name}_UPPER_ARM"]
        stroke(upper_arm, (shoulder, 0.037 * wide), (elbow, 0.028 * wide))
        if figure.short_sleeves:
            half = 0.45 * shoulder + 0.55 * elbow
            stroke(Part[f"{name}_SLEEVE"], (shoulder, 0.042 * wide), (half, 0.038 * wide), nearer=0.002)
        stroke(Part[f"{name}_FOREARM"], (elbow, 0.028 * wide), (wrist, 0.02 * wide), nearer=0.004)
        stroke(Part[f"{name}_HAND"], (wrist, 0.02 * wide), (points[f"{side}_hand"], 0.022 * wide), nearer=0.003)
        stroke(Part[f"{name}_THIGH"], (hip, 0.058 * wide), (knee, 0.04 * wide))
        stroke(Part[f"{name}_SHIN"], (knee, 0.04 * wide), (ankle, 0.025 * wide), nearer=0.001)
        stroke(Part[f"{name}_FOOT"], (ankle, 0.026 * wide), (points[f"{side}_toe"], 0.022 * wide), nearer=0.002)
        stroke(Part[f"{name}_EAR"], (points[f"{side}_ear"], 0.2 * head))
    stroke(Part.NOSE, (points["nose"], 0.13 * head))
    if figure.long_hair:
        axes = points["head_frame"]
        back = points["head"] - 0.35 * head * axes[:, 2]
        stroke(Part.HAIR, (back, 0.85 * head), (back + 1.7 * head * axes[:, 1], 0.6 * head), nearer=-0.02)
    strokes.append((float(points["head"][2]), [], Part.FACE))
    for _, ends, part in sorted(strokes, key=lambda item: item[0]):
        if part is Part.FACE:
            _head(canvas, figure, person)
        else:
            _capsule(canvas, ends, person_label(person, part))


def visibility(canvas: Labels, figure: Figure, person: int) -> NDArray[np.int64]:
    """Return COCO's visibility of the 17 keypoints on the finished label map, int64.

    0: outside the image, or on the far side of the head; 1: hidden; 2: visible.
    """
    flags = np.zeros(len(KEYPOINTS), np.int64)
    middle = (figure.points["left_hip"][2] + figure.points["right_hip"][2]) / 2
    for index, name in enumerate(KEYPOINTS):
        x, y, depth = figure.points[name]
        column, row = int(np.floor(SCALE * x)), int(np.floor(SCALE * y))
        if not (0 <= column < canvas.shape[1] and 0 <= row < canvas.shape[0]):
            continue
        on_top = canvas[row, column] in {person_label(person, part) for part in CARRIERS[name]}
        if name in FACING:
            direction = figure.points["head_frame"] @ np.array(HEAD_POINTS[name])
            cosine = direction[2] / np.linalg.norm(direction)
            if cosine < FACING[name]:
                continue
            near = True
        else:
            # The far shoulder or hip of a side view is behind the torso that carries it.
            carried = name.endswith(("_shoulder", "_hip"))
            base = figure.points["neck"][2] if name.endswith("_shoulder") else middle
            near = not carried or depth > base - 0.06 * figure.height
        flags[index] = 2 if on_top and near else 1
    return flags


SKINS = np.array(
    [(198, 220, 250), (170, 200, 240), (140, 175, 225), (105, 145, 200), (75, 110, 165), (50, 75, 120), (35, 52, 85)],
    np.float64,
)
HAIRS = np.array(
    [(25, 25, 30), (30, 45, 75), (45, 70, 110), (100, 160, 200), (150, 150, 155), (40, 60, 150)], np.float64
)


def _cloth(rng: np.random.Generator) -> Array:
    """Draw a garment's colour (BGR), a third of them greys."""
    if rng.random() < 0.35:
        return np.clip(np.full(3, rng.uniform(15, 240)) + rng.normal(0, 6, 3), 0, 255)
    return rng.uniform(10, 245, 3)


def paint_person(palette: Image, pattern: NDArray[np.float32], person: int, rng: np.random.Generator) -> None:
    """Choose a person's colours.

    Args:
        palette: uint8 (256, 3), the BGR colour of each label; the person's rows are set.
        pattern: float32 (256,), how strongly a label shows the scene's pattern; the person's rows are set.
        person: number of the person in the scene.
        rng: source of the choice.
    """
    skin = np.clip(SKINS[rng.integers(len(SKINS))] * rng.uniform(0.85, 1.1), 0, 255)
    hair = np.clip(HAIRS[rng.integers(len(HAIRS))] * rng.uniform(0.8, 1.2), 0, 255)
    top, bottom, shoe = _cloth(rng), _cloth(rng), _cloth(rng) * 0.6
    if rng.random() < 0.12:
        bottom = top
    bare_shins, bare_arms = rng.random() < 0.3, rng.random() < 0.45
    colors: dict[Part, Array] = dict.fromkeys(Part, skin)
    colors |= {
        Part.TORSO: top, Part.HAIR: hair, Part.EYE: np.array([30.0, 25.0, 25.0]),
        Part.MOUTH: np.clip(skin * (0.6, 0.55, 0.85), 0, 255), Part.NOSE: skin * 0.85,
        Part.LEFT_EAR: skin * 0.92, Part.RIGHT_EAR: skin * 0.92,
        Part.CHEST: _cloth(rng) if rng.random() < 0.5 else np.clip(top * rng.uniform(0.6, 1.3), 0, 255),
    }  # fmt: skip
    # The sides differ a little, as limbs do in a directed light; which one is darker is chance.
    shade = dict(zip(("LEFT", "RIGHT"), rng.uniform(0.82, 1.0, 2), strict=True))
    for side, dim in shade.items():
        sleeve = top * dim
        colors[Part[f"{side}_UPPER_ARM"]] = skin * dim if bare_arms else sleeve
        colors[Part[f"{side}_SLEEVE"]] = sleeve
        colors[Part[f"{side}_FOREARM"]] = skin * dim if bare_arms else sleeve
        colors[Part[f"{side}_HAND"]] = skin * dim
        colors[Part[f"{side}_THIGH"]] = bottom * dim
        colors[Part[f"{side}_SHIN"]] = skin * dim if bare_shins else bottom * dim
        colors[Part[f"{side}_FOOT"]] = shoe
    for part, color in colors.items():
        palette[person_label(person, part)] = color
    if rng.random() < 0.45:
        for part in (Part.TORSO, Part.LEFT_SLEEVE, Part.RIGHT_SLEEVE):
            pattern[person_label(person, part)] = rng.uniform(15, 70)
    if rng.random() < 0.15:
        for part in (Part.LEFT_THIGH, Part.RIGHT_THIGH):
            pattern[person_label(person, part)] = rng.uniform(15, 60)


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
    color = _cloth(rng) if rng.random() < 0.8 else SKINS[rng.integers(len(SKINS))]
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
