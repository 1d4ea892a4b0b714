"""What a drawn hand looks like: the 21 keypoints of COCO-WholeBody's hands, which OneHand10K and FreiHAND have, too.

Hand coordinates are in units of the hand's length, from the wrist to the tip of the middle finger: x towards the thumb,
y down, where the wrist is, z out of the palm. Of a right hand seen from the palm the thumb is at the image's right.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from posequant.demo.camera import Array, View, project
from posequant.demo.drawing import SKINS, Figure, Kind, Looks, Shape, Stroke, cloth_color

WRIST, CUFF = (0.0, 0.45, 0.0), (0.0, 0.57, 0.0)


@dataclass(frozen=True)
class Finger:
    """A finger of the ordinary hand.

    Attributes:
        root: where its first joint is: (x, y).
        slant: angle to straight up, towards the thumb, in radians.
        lengths: of its three segments.
        radius: half of its thickness at the root; at the tip it is a quarter less.
        bends_to: the direction, (x, y, z), in which it is bent.
    """

    root: tuple[float, float]
    slant: float
    lengths: tuple[float, float, float]
    radius: float
    bends_to: tuple[float, float, float] = (0.0, 0.0, 1.0)


FINGERS = {
    "thumb": Finger((0.13, 0.33), 0.85, (0.22, 0.17, 0.14), 0.062, (-0.7, -0.2, 0.7)),
    "forefinger": Finger((0.15, -0.02), 0.14, (0.23, 0.14, 0.11), 0.05),
    "middle_finger": Finger((0.04, -0.05), 0.02, (0.25, 0.16, 0.12), 0.05),
    "ring_finger": Finger((-0.07, -0.02), -0.1, (0.23, 0.15, 0.12), 0.047),
    "pinky_finger": Finger((-0.17, 0.05), -0.24, (0.18, 0.11, 0.1), 0.041),
}

KEYPOINTS = ("wrist", *(f"{finger}{joint}" for finger in FINGERS for joint in range(1, 5)))
SKELETON = tuple(
    (0 if joint == 1 else 4 * finger + joint - 1, 4 * finger + joint) for finger in range(5) for joint in range(1, 5)
)

# How much each joint of a finger takes part in its curl.
JOINT_SHARES = (0.8, 1.0, 0.6)


class Part(IntEnum):
    """What a label inside a hand stands for; the three segments and the nail of a finger follow from its place."""

    PALM = 0
    CUFF = 1
    FIRST_SEGMENT = 2
    FIRST_NAIL = 17


def segment(finger: int, number: int) -> int:
    """Return the label of a segment, 0 to 2, of a finger, 0 to 4."""
    return Part.FIRST_SEGMENT + 3 * finger + number


def nail(finger: int) -> int:
    """Return the label of a finger's nail."""
    return Part.FIRST_NAIL + finger


def _carriers() -> dict[str, set[int]]:
    """Return on which parts a keypoint lies."""
    carriers: dict[str, set[int]] = {"wrist": {Part.PALM, Part.CUFF}}
    for place, finger in enumerate(FINGERS):
        first, second, third = (segment(place, number) for number in range(3))
        tip = {third, nail(place)}
        lies_on = ({Part.PALM, first}, {first, second}, {second, *tip}, tip)
        carriers |= {f"{finger}{joint}": set(parts) for joint, parts in enumerate(lies_on, start=1)}
    return carriers


@dataclass(frozen=True)
class Pose:
    """How a hand is held.

    Attributes:
        curls: bend of the joints of each finger, in radians; 0 is straight.
        spread: by how much fingers are spread, as a factor of the ordinary slant.
        left: whether it is a left hand.
    """

    curls: tuple[float, ...]
    spread: float
    left: bool


def hand_points(pose: Pose) -> dict[str, Array]:
    """Return the position of each keypoint and of `cuff`.

    The entries `FINGER_frame` are no positions: they are the directions that the nails face.
    """
    mirror = np.array([-1.0 if pose.left else 1.0, 1.0, 1.0])
    points = {"wrist": np.array(WRIST), "cuff": np.array(CUFF)}
    for (name, finger), curl in zip(FINGERS.items(), pose.curls, strict=True):
        slant = finger.slant * pose.spread
        along = np.array([np.sin(slant), -np.cos(slant), 0.0])
        across = np.array(finger.bends_to)
        across -= (across @ along) * along
        across /= np.linalg.norm(across)
        point, bend = np.array([*finger.root, 0.0]), 0.0
        points[f"{name}1"] = point
        for joint, (length, share) in enumerate(zip(finger.lengths, JOINT_SHARES, strict=True), start=2):
            bend += share * curl
            point = point + length * (np.cos(bend) * along + np.sin(bend) * across)
            points[f"{name}{joint}"] = point
        points[f"{name}_frame"] = np.sin(bend) * along - np.cos(bend) * across
    return {name: mirror * point for name, point in points.items()}


def hand_figure(points: dict[str, Array], length: float, girth: float = 1.0) -> Figure:
    """Return a hand ready to be drawn.

    Args:
        points: projected points of `hand_points`.
        length: of the hand in pixels.
        girth: its thickness as a factor of the ordinary one.
    """
    wide = girth * length
    knuckles = [points[f"{finger}1"] for finger in FINGERS if finger != "thumb"]
    side = 0.25 * (knuckles[0] - knuckles[-1])
    shapes: list[Shape] = [
        Stroke(
            Part.CUFF, tuple((points[end] + way * side, 0.06 * wide) for end in ("wrist", "cuff") for way in (-1, 1))
        ),
        Stroke(
            Part.PALM,
            (
                *((knuckle, 0.055 * wide) for knuckle in knuckles),
                *((points["wrist"] + way * side, 0.06 * wide) for way in (-1, 1)),
            ),
        ),
    ]
    for place, (name, finger) in enumerate(FINGERS.items()):
        joints = [points[f"{name}{joint}"] for joint in range(1, 5)]
        radii = wide * finger.radius * np.linspace(1.0, 0.75, 4)
        for number in range(3):
            ends = tuple((joints[number + more], radii[number + more]) for more in (0, 1))
            # A finger that is straight lies over the palm's edge.
            shapes.append(Stroke(segment(place, number), ends, nearer=0.001 * number * length))
        faces = points[f"{name}_frame"]
        if faces[2] > 0.1:
            center = 0.2 * joints[2] + 0.8 * joints[3] + 0.5 * radii[3] * faces
            shapes.append(Stroke(nail(place), ((center, 0.55 * radii[3] * faces[2]),), nearer=0.01 * length))
    return Figure(points=points, size=length, middle=points["middle_finger1"][:2], shapes=tuple(shapes))


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: an open hand, a relaxed one, or one some of whose fingers are bent to the palm."""
    kind = rng.choice(3, p=[0.5, 0.25, 0.25])
    if kind == 0:
        curls = rng.uniform(0.0, 0.25, 5)
    elif kind == 1:
        curls = rng.uniform(0.2, 0.6) + rng.normal(0, 0.08, 5)
    else:
        curls = np.where(rng.random(5) < 0.5, rng.uniform(1.1, 1.5, 5), rng.uniform(0.0, 0.2, 5))
        curls[0] = rng.uniform(0.0, 0.6)
    return Pose(tuple(curls.tolist()), rng.uniform(0.7, 1.4), bool(rng.random() < 0.5))


def _sample(width: int, height: int, rng: np.random.Generator) -> Figure:
    """Draw a hand's pose, proportions and place in an image of `width` x `height` pixels."""
    length = float(np.exp(rng.uniform(np.log(60), np.log(130))))
    center = (rng.uniform(0.25, 0.75) * width, rng.uniform(0.3, 0.7) * height)
    # The palm or the back of the hand is seen, not its edge.
    yaw = rng.normal(0, 0.3) + (np.pi if rng.random() < 0.5 else 0.0)
    view = View(yaw, rng.normal(0, 0.25), rng.normal(0, 0.4), length, center)
    return hand_figure(project(hand_points(sample_pose(rng)), view), length, rng.uniform(0.9, 1.2))


def _paint(rng: np.random.Generator) -> Looks:
    """Draw a hand's colours: skin, nails and a cuff. Fingers differ a little, as in a directed light."""
    skin = np.clip(SKINS[rng.integers(len(SKINS))] * rng.uniform(0.85, 1.1), 0, 255)
    colors: dict[int, Array] = {Part.PALM: skin, Part.CUFF: cloth_color(rng)}
    varnish = cloth_color(rng) if rng.random() < 0.2 else np.clip(skin * (0.95, 0.95, 1.05) + 25, 0, 255)
    for place, shade in enumerate(rng.uniform(0.8, 1.0, len(FINGERS))):
        colors |= {segment(place, number): shade * skin for number in range(3)}
        colors[nail(place)] = varnish
    return Looks(colors, {Part.CUFF: rng.uniform(15, 70)} if rng.random() < 0.4 else {})


HAND = Kind(
    name="hand",
    plural="hands",
    keypoints=KEYPOINTS,
    skeleton=SKELETON,
    carriers=_carriers(),
    sample=_sample,
    paint=_paint,
    widths=(150, 201),
    heights=(150, 201),
    crowds=(0.8, 0.2),
    objects=(0.75, 0.2, 0.05),
    apart=0.8,
    min_visible=8,
)
