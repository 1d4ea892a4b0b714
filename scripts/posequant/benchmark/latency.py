"""How long a network takes for one crop, told by a ratio that a busy machine does not spoil."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posequant.base.timing import time_in_turn
from posequant.networks.base import Network

WARM_UP_ROUNDS = 3
MINIMUM_ROUNDS = 10


@dataclass(frozen=True)
class Latency:
    """Wall-clock times of single crops on one thread.

    Attributes:
        rounds: how many rounds were timed; each timed both networks once, on the same crop.
        median_ms: median of the network's times, in milliseconds.
        quartiles_ms: first and third quartile of them.
        reference_median_ms: median of the reference's times.
        speedup: median over the rounds of reference time / network time; above 1 the network is faster.
    """

    rounds: int
    median_ms: float
    quartiles_ms: tuple[float, float]
    reference_median_ms: float
    speedup: float


def measure_latency(
    network: Network, reference: Network, crops: NDArray[np.float32], rounds: int, seconds: float
) -> Latency:
    """Time `network` and `reference` in turn on one crop after the other of `crops` (N, 3, H, W).

    Stops after `rounds` rounds, or after `seconds` once at least `MINIMUM_ROUNDS` are done.
    """

    def run(contender: Network) -> Callable[[int], object]:
        return lambda number: contender.forward(_crop(crops, number))

    times = time_in_turn(
        run(network),
        run(reference),
        warm_up=WARM_UP_ROUNDS,
        rounds=rounds,
        minimum_rounds=MINIMUM_ROUNDS,
        seconds=seconds,
    )
    milliseconds = 1000 * times
    first, median, third = np.percentile(milliseconds[:, 0], [25, 50, 75])
    return Latency(
        rounds=len(times),
        median_ms=float(median),
        quartiles_ms=(float(first), float(third)),
        reference_median_ms=float(np.median(milliseconds[:, 1])),
        speedup=float(np.median(milliseconds[:, 1] / milliseconds[:, 0])),
    )


def _crop(crops: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    place = index % len(crops)
    return crops[place : place + 1]
