"""What two rows must share before their figures may stand side by side."""

from collections.abc import Mapping
from typing import Any

from posequant.base.errors import InputError

COMMON_GROUND = ("model", "protocol", "instances")
# By their hashes. That of the annotations speaks for the images, too.
COMMON_FILES = ("model", "annotations", "detections")


def require_common_ground(first: Mapping[str, Any], other: Mapping[str, Any], names: tuple[object, object]) -> None:
    """Raise `InputError` unless two predictions were made of one model under one protocol, for the same people.

    Args:
        first: identity of predictions, or the metrics that carry it.
        other: the same.
        names: how the message is to call the two.
    """
    ground = [(key, first[key], other[key]) for key in COMMON_GROUND]
    ground += [(f"sha256 of the {key}", first["sha256"][key], other["sha256"][key]) for key in COMMON_FILES]
    for what, ours, theirs in ground:
        if ours != theirs:
            raise InputError(
                f"{names[0]} and {names[1]} cannot be compared: {what} is {ours!r} and {theirs!r}. Delete the "
                "predictions of the older one and run again."
            )
