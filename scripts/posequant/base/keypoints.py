"""What a dataset calls the keypoints of a person, a hand or an animal; and COCO's.

Source of COCO's: mmpose 1.3.2, configs/_base_/datasets/coco.py; a test compares them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

NUM_KEYPOINTS = len(KEYPOINTS)

SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
    0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""Falloff of OKS for each keypoint."""

SKELETON = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
"""The pairs of keypoints that a drawing joins by lines, counted from 0."""

FLIP_INDICES = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
"""For each keypoint its partner in a mirrored person."""

_UNKNOWN = "unknown"


@dataclass(frozen=True)
class KeypointSet:
    """The K keypoints that a network finds and that a dataset has annotated.

    Attributes:
        name: of the set, as `coco`.
        names: of the keypoints, in the order of annotations and outputs.
        skeleton: the pairs of keypoints that a drawing joins by lines, counted from 0.
        flip_indices: for each keypoint its partner in a mirrored image; itself where it has none.
        sigmas: falloff of OKS for each keypoint; None where the dataset has none, and OKS is not defined.
    """

    name: str
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    flip_indices: tuple[int, ...]
    sigmas: tuple[float, ...] | None

    def __len__(self) -> int:
        """Return K."""
        return len(self.names)

    def __str__(self) -> str:
        """Return how messages name the set."""
        return f"{self.name} ({len(self)} keypoints)"

    def listed(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {key: _listed(value) for key, value in asdict(self).items()}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "KeypointSet":
        """Return what `listed` made JSON of; `KeyError` or `TypeError` where that is something else."""
        return cls(
            name=str(content["name"]),
            names=tuple(content["names"]),
            skeleton=tuple((first, second) for first, second in content["skeleton"]),
            flip_indices=tuple(content["flip_indices"]),
            sigmas=None if content["sigmas"] is None else tuple(content["sigmas"]),
        )

    @classmethod
    def unknown(cls, names: tuple[str, ...]) -> "KeypointSet":
        """Return the set of a file that says the names of its keypoints, at most."""
        return cls(_UNKNOWN, names, (), tuple(range(len(names))), None)

    @property
    def is_known(self) -> bool:
        """Whether anybody has said what they are: not so for `unknown`."""
        return self.name != _UNKNOWN


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, tuple) else value


COCO = KeypointSet("coco", KEYPOINTS, SKELETON, FLIP_INDICES, SIGMAS)
