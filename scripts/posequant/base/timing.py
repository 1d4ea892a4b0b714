"""Pieces of work timed in turn, so that their ratios hold on a machine that is busy with other things."""

from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm


def time_in_turn(
    works: Sequence[Callable[[int], object]],
    *,
    warm_up: int,
    rounds: int,
    minimum_rounds: int,
    seconds: float,
    clock: Callable[[], float] = perf_counter,
) -> NDArray[np.float64]:
    """Return the times of N pieces of work, float64 (R, N), in seconds; R is the number of timed rounds.

    Every round runs each once, in the order of `order_of_round`.

    Args:
        works: work to time; each is called with the number of the round, from 0.
        warm_up: rounds that are run before and not timed.
        rounds: after how many rounds to stop.
        minimum_rounds: how many are timed in any case.
        seconds: time after which no further round starts, once the minimum is reached.
        clock: what tells the time: the wall clock, or `thread_time` for work of this thread alone, which other programs
            then do not add to.
    """
    for number in range(warm_up):
        for work in works:
            work(number)
    times: list[list[float]] = []
    end = perf_counter() + seconds
    with tqdm(total=rounds, desc="timing", unit="round", mininterval=2) as progress:
        while len(times) < rounds and (len(times) < minimum_rounds or perf_counter() < end):
            number = len(times)
            times.append([0.0] * len(works))
            for place in order_of_round(number, len(works)):
                times[-1][place] = _seconds(works[place], number, clock)
            progress.update()
    return np.array(times)


def order_of_round(number: int, count: int) -> list[int]:
    """Return in which order a round runs `count` pieces of work.

    Whatever runs next finds the caches full of the data of what ran before. Over `count` rounds, or twice as many where
    it is odd, each therefore comes after each other one equally often; a run that stops in between leaves them about
    equal. Source: Williams, Experimental designs balanced
    for the estimation of residual effects of treatments, Australian Journal of Scientific Research 2, 1949.
    """
    zigzag = [(place + 1) // 2 if place % 2 else (count - place // 2) % count for place in range(count)]
    order = [(place + number) % count for place in zigzag]
    return order[::-1] if count % 2 and number // count % 2 else order


def _seconds(work: Callable[[int], object], number: int, clock: Callable[[], float]) -> float:
    start = clock()
    work(number)
    return clock() - start
