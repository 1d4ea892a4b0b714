"""Whose pose is shown."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posequant.workflow.settings.report import Pictures

Choice = Literal["worst", "typical", "random"]


@dataclass(frozen=True)
class Chosen:
    """A person to show.

    Attributes:
        row: among the predictions.
        choice: why.
        rank: place among those chosen for the same reason, from 1.
    """

    row: int
    choice: Choice
    rank: int


def choose(losses: NDArray[np.float64], settings: Pictures) -> list[Chosen]:
    """Choose people by their loss: the worst, then typical ones of the others, then some of the rest at random.

    The draw puts all people in an order that depends on their number and the seed alone, and takes the first who are
    not chosen yet: rows of one study show the same people, but for those. Of equal losses the first person is taken.

    Args:
        losses: of N people, float64 (N,); NaN for those who are not to be chosen.
        settings: how many of each.

    Returns:
        Nobody twice; fewer than asked for where there are not as many.
    """
    known = np.flatnonzero(~np.isnan(losses))
    if not len(known):
        return []
    counts: dict[Choice, int] = {"worst": settings.worst, "typical": settings.typical, "random": settings.random}
    orders: dict[Choice, NDArray[np.int64]] = {
        "worst": known[np.argsort(-losses[known], kind="stable")],
        "typical": known[np.argsort(np.abs(losses[known] - np.median(losses[known])), kind="stable")],
        "random": np.random.default_rng(settings.seed).permutation(len(losses)),
    }
    taken: set[int] = set(np.flatnonzero(np.isnan(losses)).tolist())
    chosen: list[Chosen] = []
    for choice, count in counts.items():
        first = [row for row in orders[choice].tolist() if row not in taken][:count]
        taken.update(first)
        chosen += [Chosen(row, choice, rank) for rank, row in enumerate(first, start=1)]
    return chosen
