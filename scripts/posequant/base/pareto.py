"""What no other choice beats in two respects at once."""

import math
from collections.abc import Sequence


def pareto_front(prices: Sequence[float], losses: Sequence[float]) -> list[int]:
    """Return the places of the points that no other beats in both price and loss, by rising price; NaN is left out."""
    front: list[int] = []
    known = [place for place, loss in enumerate(losses) if not math.isnan(loss)]
    for place in sorted(known, key=lambda place: (prices[place], losses[place])):
        if not front or losses[place] < losses[front[-1]]:
            front.append(place)
    return front
