"""The synthetic body: proportions, joint angles, and where they put its joints.

Body coordinates are in units of the body's height: x towards the person's left, y down, z to where the person faces.
Seen from the front the person's left is therefore at the image's right, as in a photograph.
"""

from dataclasses import dataclass, replace

import numpy as np

from posequant.demo.camera import Array, rotation

SIDES = {"left": 1.0, "right": -1.0}

# Lengths as shares of body height, after the segment lengths of Winter, "Biomechanics and Motor Control of Human
# Movement" (figure 4.1), shortened a little so that the head, which is not a segment there, fits its own radius.
TORSO, NECK, UPPER_ARM, FOREARM, HAND, THIGH, SHIN, FOOT = 0.28, 0.055, 0.175, 0.145, 0.05, 0.24, 0.235, 0.09
SHOULDER, HIP = 0.115, 0.075
HEAD_RADIUS = 0.07

# Directions from the centre of the head to what lies on its surface.
HEAD_POINTS = {
    "nose": (0.0, 0.12, 1.08),
    "left_eye": (0.40, -0.22, 0.87),
    "right_eye": (-0.40, -0.22, 0.87),
    "left_ear": (0.9, 0.02, -0.1),
    "right_ear": (-0.9, 0.02, -0.1),
}


@dataclass(frozen=True)
class Limb:
    """The angles of an arm or a leg, in radians.

    Attributes:
        lift: angle between the upper segment and straight down.
        turn: where the lifted segment points: 0 to the front, pi/2 outwards, pi to the back.
        flex: bend of the elbow or the knee; 0 is straight.
        twist: turns the plane of that bend about the upper segment, outwards.
    """

    lift: float
    turn: float
    flex: float
    twist: float = 0.0


@dataclass(frozen=True)
class Pose:
    """Joint angles of a body, in radians; the limbs are those of the left and the right side."""

    lean: float
    side_bend: float
    shoulder_twist: float
    head_yaw: float
    head_pitch: float
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]

    def mirrored(self) -> "Pose":
        """Return the pose as seen in a mirror: what the left side does, the right side now does."""
        return replace(
            self,
            side_bend=-self.side_bend,
            shoulder_twist=-self.shoulder_twist,
            head_yaw=-self.head_yaw,
            arms=self.arms[::-1],
            legs=self.legs[::-1],
        )


@dataclass(frozen=True)
class Build:
    """A body's proportions, as factors of the ordinary ones."""

    head: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0
    legs: float = 1.0
    girth: float = 1.0


def _segments(limb: Limb, side: float, bend_to: Array) -> tuple[Array, Array]:
    """Return the unit directions of a limb's upper and lower segment; the joint bends towards `bend_to`."""
    sine = np.sin(limb.lift)
    upper = np.array([side * sine * np.sin(limb.turn), np.cos(limb.lift), sine * np.cos(limb.turn)])
    across = bend_to - (bend_to @ upper) * upper
    across /= max(float(np.linalg.norm(across)), 1e-6)
    # Rodrigues' formula for a vector at right angles to the axis. The handedness changes with the side.
    across = across * np.cos(limb.twist) + side * np.cross(upper, across) * np.sin(limb.twist)
    return upper, upper * np.cos(limb.flex) + across * np.sin(limb.flex)


def body_points(pose: Pose, build: Build) -> dict[str, Array]:
    """Return the position of each keypoint and of `neck`, `head`, `*_hand` and `*_toe`, the mid-hip at the origin.

    The entries `head_frame` and `chest_frame` are no positions: they are the 3x3 rotations of the head and of the
    chest, the columns being their own axes.
    """
    torso = rotation(0, -pose.lean) @ rotation(2, pose.side_bend) @ rotation(1, pose.shoulder_twist)
    head = torso @ rotation(1, pose.head_yaw) @ rotation(0, -pose.head_pitch)
    radius = HEAD_RADIUS * build.head
    neck = torso @ np.array([0.0, -TORSO, 0.0])
    center = neck + torso @ np.array([0.0, -NECK, 0.0]) + head @ np.array([0.0, -radius, 0.3 * radius])
    points = {"neck": neck, "head": center, "head_frame": head, "chest_frame": torso}
    for name, direction in HEAD_POINTS.items():
        points[name] = center + head @ (radius * np.array(direction))
    for (name, side), arm, leg in zip(SIDES.items(), pose.arms, pose.legs, strict=True):
        shoulder = neck + torso @ np.array([side * SHOULDER * build.shoulders, 0.015, 0.0])
        # An elbow bends forwards and a little up and inwards; a knee bends backwards.
        upper, lower = (torso @ d for d in _segments(arm, side, np.array([-0.4 * side, -0.3, 1.0])))
        points[f"{name}_shoulder"] = shoulder
        points[f"{name}_elbow"] = elbow = shoulder + UPPER_ARM * upper
        points[f"{name}_wrist"] = wrist = elbow + FOREARM * lower
        points[f"{name}_hand"] = wrist + HAND * lower
        thigh, shin = _segments(leg, side, np.array([0.0, 0.6, -1.0]))
        points[f"{name}_hip"] = hip = np.array([side * HIP * build.hips, 0.0, 0.0])
        points[f"{name}_knee"] = knee = hip + THIGH * build.legs * thigh
        points[f"{name}_ankle"] = ankle = knee + SHIN * build.legs * shin
        # A foot stands at right angles to the shin, towards the front.
        forward = np.array([0.25 * side, 0.0, 1.0]) + thigh * 0.3
        forward -= (forward @ shin) * shin
        points[f"{name}_toe"] = ankle + FOOT * (0.9 * forward / np.linalg.norm(forward) + 0.35 * shin)
    return points


def sample_build(rng: np.random.Generator) -> Build:
    """Draw a body's proportions: mostly adults, some children with larger heads and shorter legs."""
    child = rng.random() < 0.15
    return Build(
        head=rng.uniform(1.25, 1.55) if child else rng.uniform(0.9, 1.12),
        shoulders=rng.uniform(0.8, 1.15),
        hips=rng.uniform(0.85, 1.15),
        legs=rng.uniform(0.75, 0.9) if child else rng.uniform(0.92, 1.06),
        girth=float(np.exp(rng.normal(0.15, 0.15))),
    )


def _arm(rng: np.random.Generator) -> Limb:
    kind = rng.choice(4, p=[0.45, 0.25, 0.15, 0.15])
    turn = rng.uniform(0, 1.9)
    twist = rng.normal(0, 0.6)
    if kind == 0:  # hangs
        return Limb(rng.uniform(0, 0.5), turn, rng.uniform(0, 0.8), twist)
    if kind == 1:  # bent: hand at the hip, chest or face
        return Limb(rng.uniform(0.1, 1.1), turn, rng.uniform(1.0, 2.4), twist)
    if kind == 2:  # stretched out
        return Limb(rng.uniform(0.9, 1.9), turn, rng.uniform(0, 0.7), twist)
    return Limb(rng.uniform(1.9, 3.0), rng.uniform(0.5, 1.9), rng.uniform(0, 1.6), twist)  # raised


def _standing_leg(rng: np.random.Generator) -> Limb:
    return Limb(rng.uniform(0, 0.3), rng.uniform(0, 2.2), rng.uniform(0, 0.3))


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: standing, walking, sitting, squatting, bent over, or legs anywhere."""
    kind = rng.choice(6, p=[0.38, 0.24, 0.16, 0.08, 0.08, 0.06])
    lean = rng.normal(0.05, 0.12)
    legs: tuple[Limb, Limb]
    if kind == 0:
        legs = (_standing_leg(rng), _standing_leg(rng))
    elif kind == 1:
        stride = rng.uniform(0.2, 0.8)
        front = Limb(stride, rng.uniform(0, 0.3), rng.uniform(0, 0.6))
        back = Limb(0.7 * stride, np.pi - rng.uniform(0, 0.3), rng.uniform(0.1, 1.3))
        legs = (front, back) if rng.random() < 0.5 else (back, front)
    elif kind == 2:
        lift, flex = rng.uniform(1.1, 1.75), rng.uniform(0.7, 1.9)
        legs = tuple(  # type: ignore[assignment]
            Limb(lift + rng.normal(0, 0.12), rng.uniform(0, 0.6), max(0.0, flex + rng.normal(0, 0.25)))
            for _ in range(2)
        )
        lean += rng.uniform(-0.25, 0.4)
    elif kind == 3:
        lift = rng.uniform(1.2, 2.2)
        legs = tuple(  # type: ignore[assignment]
            Limb(lift + rng.normal(0, 0.15), rng.uniform(0.1, 0.8), rng.uniform(1.6, 2.4)) for _ in range(2)
        )
        lean += rng.uniform(0.2, 0.8)
    elif kind == 4:
        legs = (_standing_leg(rng), _standing_leg(rng))
        lean += rng.uniform(0.5, 1.4)
    else:
        legs = tuple(  # type: ignore[assignment]
            Limb(rng.uniform(0, 1.6), rng.uniform(0, 2.4), rng.uniform(0, 1.8), rng.normal(0, 0.2)) for _ in range(2)
        )
    return Pose(
        lean=lean,
        side_bend=rng.normal(0, 0.13),
        shoulder_twist=rng.normal(0, 0.2),
        head_yaw=rng.normal(0, 0.4),
        head_pitch=rng.normal(0.08, 0.22),
        arms=(_arm(rng), _arm(rng)),
        legs=legs,
    )


def sample_yaw(rng: np.random.Generator) -> float:
    """Draw how a body is turned: front views most often, then sides and backs."""
    toward = rng.choice([0.0, np.pi / 2, -np.pi / 2, np.pi], p=[0.5, 0.15, 0.15, 0.2])
    return float(toward + rng.normal(0, 0.45))
