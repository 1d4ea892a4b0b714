"""Which of the calibration people the steps of a recipe see, which decide, and which only tell what came of it."""

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError

Places = NDArray[np.int64]

# Images in the order in which people were chosen go to these parts in turn: half, a quarter, a quarter.
_TURNS = ("seen", "deciding", "seen", "telling")
# With fewer that decide or tell, a bound at 95% holds less often: with 32, in 86% to 92% of samples (`score.scores`).
MIN_PEOPLE = 64


@dataclass(frozen=True)
class Parts:
    """The places of N people in three parts that share no image, each int64, ascending.

    Attributes:
        seen: those that the steps see.
        deciding: those by whom networks are chosen.
        telling: those that only tell what the chosen network loses.
    """

    seen: Places
    deciding: Places
    telling: Places


def split(image_ids: Places) -> Parts:
    """Split N people into half, a quarter and a quarter of their images; fewer than four images are not split.

    An image goes by its place among the images in the order of `image_ids` (N,). So the part of an image stays what it
    is when more people are chosen with the same seed. Of fewer than four images all people are seen and decide, and
    nobody tells the outcome.
    """
    order = dict.fromkeys(image_ids.tolist())
    if len(order) < len(_TURNS):
        everyone = np.arange(len(image_ids))
        return Parts(seen=everyone, deciding=everyone, telling=everyone[:0])
    part_of = {image: _TURNS[place % len(_TURNS)] for place, image in enumerate(order)}
    parts = np.array([part_of[image] for image in image_ids.tolist()])
    return Parts(*(np.flatnonzero(parts == name) for name in Parts.__annotations__))


def tell_of_few(parts: Parts, *, bounded: bool) -> None:
    """Print a notice where people are too few for what they are to say.

    Args:
        parts: the people.
        bounded: whether a bound on a loss is to hold.

    Raises:
        InputError: a bound is to hold, and those who decide are those who were seen.
    """
    if not len(parts.telling):
        if bounded:
            raise InputError(
                f"a budget needs calibration people in at least {len(_TURNS)} images, of which a quarter decides and a "
                "quarter tells the outcome. Calibrate on more people."
            )
        print(
            f"notice: calibration people in fewer than {len(_TURNS)} images are not split. The steps are judged on the "
            "people that they saw, and nobody tells the outcome; calibrate on more",
            file=sys.stderr,
        )
    elif bounded and min(len(parts.deciding), len(parts.telling)) < MIN_PEOPLE:
        print(
            f"notice: {len(parts.deciding)} people decide and {len(parts.telling)} tell the outcome. With fewer than "
            f"{MIN_PEOPLE} a bound at 95% holds less often than it says; calibrate on {4 * MIN_PEOPLE} people or more",
            file=sys.stderr,
        )
