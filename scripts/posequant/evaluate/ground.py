"""What two rows must share before their figures may stand side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from posequant.base.errors import InputError
from posequant.base.keypoints import COCO
from posequant.evaluate.predictions import Predictions

COMMON_GROUND = ("model", "protocol", "instances")
# By their hashes. That of the annotations speaks for the images, too.
COMMON_FILES = ("model", "annotations", "detections")


def subset_words(protocol: Mapping[str, Any]) -> str:
    """Return in words which images of the evaluation set a protocol takes; nothing where it takes all."""
    if not (people := protocol.get("people")):
        return ""
    return f"images chosen at random, seed {protocol['seed']}, until they held {people:,} people"


def require_common_ground(first: Mapping[str, Any], other: Mapping[str, Any], names: tuple[object, object]) -> None:
    """Raise `InputError` unless two predictions were made of one model under one protocol, for the same people.

    Args:
        first: identity of predictions, or the metrics that carry it.
        other: the same.
        names: how the message is to call the two.
    """
    ground = [(key, first[key], other[key]) for key in COMMON_GROUND]
    ground += [("set of keypoints", *(one.get("keypoints", COCO.listed()) for one in (first, other)))]
    ground += [(f"sha256 of the {key}", first["sha256"][key], other["sha256"][key]) for key in COMMON_FILES]
    for what, ours, theirs in ground:
        if ours != theirs:
            raise InputError(
                f"{names[0]} and {names[1]} cannot be compared: {what} is {ours!r} and {theirs!r}. Delete the "
                "predictions of the older one and run again."
            )


def require_same_people(first: Predictions, other: Predictions, names: tuple[object, object]) -> None:
    """Raise `InputError` unless two predictions stand on common ground and hold the same people in the same order.

    Args:
        first: whole, not a shard.
        other: the same.
        names: how the message is to call the two.
    """
    require_common_ground(first.identity, other.identity, names)
    if not np.array_equal(first.ids, other.ids) or not np.array_equal(first.bboxes, other.bboxes):
        raise InputError(f"{names[0]}: other people, or in another order, than in {names[1]}. Predict again.")
