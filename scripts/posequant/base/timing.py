"""Two pieces of work timed in turn, so that their ratio holds on a machine that is busy with other things."""

import platform
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm


def time_in_turn(
    first: Callable[[int], object],
    second: Callable[[int], object],
    *,
    warm_up: int,
    rounds: int,
    minimum_rounds: int,
    seconds: float,
) -> NDArray[np.float64]:
    """Return the wall-clock times of both, float64 (R, 2), in seconds; R is the number of timed rounds.

    The two swap places in every other round, as whatever runs second finds the caches full of the other's data.

    Args:
        first: work to time; it is called with the number of the round, from 0.
        second: the work it is compared with.
        warm_up: rounds that are run before and not timed.
        rounds: after how many rounds to stop.
        minimum_rounds: how many are timed in any case.
        seconds: time after which no further round starts, once the minimum is reached.
    """
    pair = (first, second)
    for number in range(warm_up):
        for work in pair:
            work(number)
    times: list[tuple[float, float]] = []
    end = perf_counter() + seconds
    with tqdm(total=rounds, desc="timing", unit="round", mininterval=2) as progress:
        while len(times) < rounds and (len(times) < minimum_rounds or perf_counter() < end):
            number = len(times)
            order = (0, 1) if number % 2 == 0 else (1, 0)
            measured = {which: _seconds(pair[which], number) for which in order}
            times.append((measured[0], measured[1]))
            progress.update()
    return np.array(times)


def _seconds(work: Callable[[int], object], number: int) -> float:
    start = perf_counter()
    work(number)
    return perf_counter() - start


def cpu_name() -> str:
    """Return the model name of this machine's processor, as Linux tells it, or the architecture elsewhere."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
