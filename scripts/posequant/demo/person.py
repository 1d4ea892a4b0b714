"""What a drawn person looks like: 17 keypoints of COCO on a body with a head, clothes and hair."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from posequant.base.keypoints import KEYPOINTS, SKELETON
from posequant.demo.camera import Array, View, project
from posequant.demo.drawing import SCALE, SKINS, Figure, Kind, Labels, Looks, Shape, Stroke, cloth_color
from posequant.demo.skeleton import (
    HEAD_POINTS,
    HEAD_RADIUS,
    SIDES,
    Build,
    body_points,
    sample_build,
    sample_pose,
    sample_yaw,
)


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

HAIRS = np.array(
    [(25, 25, 30), (30, 45, 75), (45, 70, 110), (100, 160, 200), (150, 150, 155), (40, 60, 150)], np.float64
)


@dataclass(frozen=True)
class Head:
    """A ball on whose visible half the face, the hair and the features lie.

    Attributes:
        center: (x, y, depth) in pixels.
        radius: in pixels.
        frame: the head's own axes, the columns of a rotation.
    """

    center: Array
    radius: float
    frame: Array

    @property
    def depth(self) -> float:
        """The depth of its centre."""
        return float(self.center[2])

    def draw(self, canvas: Labels, first: int) -> None:
        """Draw the labels of the half that is seen."""
        x, y, _ = SCALE * self.center
        reach = SCALE * self.radius
        left, right = int(max(0, x - reach - 1)), int(min(canvas.shape[1], x + reach + 2))
        top, bottom = int(max(0, y - reach - 1)), int(min(canvas.shape[0], y + reach + 2))
        if left >= right or top >= bottom:
            return
        across = (np.arange(left, right) - x)[None, :] / reach
        down = (np.arange(top, bottom) - y)[:, None] / reach
        square = across**2 + down**2
        toward = np.sqrt(np.clip(1 - square, 0, 1))

        def closeness(direction: tuple[float, float, float]) -> Array:
            """Cosine between each pixel's surface normal and a direction in the head's frame."""
            px, py, pz = self.frame @ (np.array(direction) / np.linalg.norm(direction))
            cosine: Array = across * px + down * py + toward * pz
            return cosine

        region = canvas[top:bottom, left:right]
        inside = square <= 1
        hair = closeness((0.0, -0.62, -0.78)) > -0.12
        region[inside] = first + Part.FACE
        region[inside & hair] = first + Part.HAIR
        bare = inside & ~hair
        for name in ("left_eye", "right_eye"):
            region[bare & (closeness(HEAD_POINTS[name]) > 0.978)] = first + Part.EYE
        mouth = (np.abs(closeness((1.0, 0.0, 0.0))) < 0.32) & (np.abs(closeness((0.0, 1.0, 0.0)) - 0.55) < 0.1)
        region[bare & mouth & (closeness((0.0, 0.0, 1.0)) > 0)] = first + Part.MOUTH


def person_figure(
    points: dict[str, Array], build: Build, height: float, *, long_hair: bool, short_sleeves: bool
) -> Figure:
    """Return a person ready to be drawn.

    Args:
        points: projected points of `camera.project`.
        build: the body's proportions.
        height: body height in pixels.
        long_hair: whether hair falls to the neck.
        short_sleeves: whether the forearms are bare.
    """
    wide = build.girth * height
    head = HEAD_RADIUS * build.head * height
    shapes: list[Shape] = []

    def stroke(part: Part, *ends: tuple[Array, float], nearer: float = 0.0) -> None:
        shapes.append(Stroke(part, ends, nearer * height))

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
        if short_sleeves:
            half = 0.45 * shoulder + 0.55 * elbow
            stroke(Part[f"{name}_SLEEVE"], (shoulder, 0.042 * wide), (half, 0.038 * wide), nearer=0.002)
        stroke(Part[f"{name}_FOREARM"], (elbow, 0.028 * wide), (wrist, 0.02 * wide), nearer=0.004)
        stroke(Part[f"{name}_HAND"], (wrist, 0.02 * wide), (points[f"{side}_hand"], 0.022 * wide), nearer=0.003)
        stroke(Part[f"{name}_THIGH"], (hip, 0.058 * wide), (knee, 0.04 * wide))
        stroke(Part[f"{name}_SHIN"], (knee, 0.04 * wide), (ankle, 0.025 * wide), nearer=0.001)
        stroke(Part[f"{name}_FOOT"], (ankle, 0.026 * wide), (points[f"{side}_toe"], 0.022 * wide), nearer=0.002)
        stroke(Part[f"{name}_EAR"], (points[f"{side}_ear"], 0.2 * head))
    stroke(Part.NOSE, (points["nose"], 0.13 * head))
    if long_hair:
        axes = points["head_frame"]
        back = points["head"] - 0.35 * head * axes[:, 2]
        stroke(Part.HAIR, (back, 0.85 * head), (back + 1.7 * head * axes[:, 1], 0.6 * head), nearer=-0.02)
    shapes.append(Head(points["head"], head, points["head_frame"]))
    return Figure(
        points=points,
        size=height,
        middle=(points["left_hip"] + points["right_hip"])[:2] / 2,
        shapes=tuple(shapes),
        averted=_averted(points),
        behind=_behind(points, height),
    )


def _averted(points: dict[str, Array]) -> frozenset[str]:
    """Return the keypoints on the far side of the head."""
    found = set()
    for name, least in FACING.items():
        direction = points["head_frame"] @ np.array(HEAD_POINTS[name])
        if direction[2] / np.linalg.norm(direction) < least:
            found.add(name)
    return frozenset(found)


def _behind(points: dict[str, Array], height: float) -> frozenset[str]:
    """Return the shoulder and hip of a side view that are behind the torso that carries them."""
    middle = (points["left_hip"][2] + points["right_hip"][2]) / 2
    bases = {"shoulder": points["neck"][2], "hip": middle}
    return frozenset(
        f"{side}_{joint}"
        for side in SIDES
        for joint, base in bases.items()
        if not points[f"{side}_{joint}"][2] > base - 0.06 * height
    )


def _sample(width: int, height: int, rng: np.random.Generator) -> Figure:
    """Draw a person's pose, build, size and place in an image of `width` x `height` pixels."""
    tall = float(np.exp(rng.uniform(np.log(115), np.log(340))))
    # Large people stand lower, so that it is their legs that the border cuts off.
    center = (rng.uniform(0.08, 0.92) * width, height * rng.uniform(0.4, 0.75) + max(0.0, tall - height) * 0.5)
    roll = rng.normal(0, 0.1) if rng.random() < 0.95 else rng.uniform(-0.9, 0.9)
    view = View(sample_yaw(rng), rng.normal(0.12, 0.13), roll, tall, center)
    build, pose = sample_build(rng), sample_pose(rng)
    return person_figure(
        project(body_points(pose, build), view),
        build,
        tall,
        long_hair=bool(rng.random() < 0.35),
        short_sleeves=bool(rng.random() < 0.5),
    )


def _paint(rng: np.random.Generator) -> Looks:
    """Draw a person's colours: skin, hair and clothes."""
    skin = np.clip(SKINS[rng.integers(len(SKINS))] * rng.uniform(0.85, 1.1), 0, 255)
    hair = np.clip(HAIRS[rng.integers(len(HAIRS))] * rng.uniform(0.8, 1.2), 0, 255)
    top, bottom, shoe = cloth_color(rng), cloth_color(rng), cloth_color(rng) * 0.6
    if rng.random() < 0.12:
        bottom = top
    bare_shins, bare_arms = rng.random() < 0.3, rng.random() < 0.45
    colors: dict[int, Array] = dict.fromkeys(Part, skin)
    colors |= {
        Part.TORSO: top, Part.HAIR: hair, Part.EYE: np.array([30.0, 25.0, 25.0]),
        Part.MOUTH: np.clip(skin * (0.6, 0.55, 0.85), 0, 255), Part.NOSE: skin * 0.85,
        Part.LEFT_EAR: skin * 0.92, Part.RIGHT_EAR: skin * 0.92,
        Part.CHEST: cloth_color(rng) if rng.random() < 0.5 else np.clip(top * rng.uniform(0.6, 1.3), 0, 255),
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
    patterns: dict[int, float] = {}
    if rng.random() < 0.45:
        patterns |= {part: rng.uniform(15, 70) for part in (Part.TORSO, Part.LEFT_SLEEVE, Part.RIGHT_SLEEVE)}
    if rng.random() < 0.15:
        patterns |= {part: rng.uniform(15, 60) for part in (Part.LEFT_THIGH, Part.RIGHT_THIGH)}
    return Looks(colors, patterns)


PERSON = Kind(
    name="person",
    plural="people",
    keypoints=KEYPOINTS,
    skeleton=SKELETON,
    carriers=CARRIERS,
    sample=_sample,
    paint=_paint,
    widths=(280, 361),
    heights=(232, 301),
    crowds=(0.42, 0.34, 0.16, 0.08),
    objects=(0.5, 0.32, 0.12, 0.06),
    apart=0.25,
    min_visible=6,
)
