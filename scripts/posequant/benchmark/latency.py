"""How long networks take for one crop, told by ratios that a busy machine does not spoil."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posequant.base.timing import time_in_turn
from posequant.networks.base import Network

Times = NDArray[np.float64]

WARM_UP_ROUNDS = 3
MINIMUM_ROUNDS = 10


@dataclass(frozen=True)
class Latency:
    """Wall-clock times of single crops on one thread.

    Attributes:
        median_ms: median of the network's times, in milliseconds.
        quartiles_ms: first and third quartile of them.
        p95_ms: their 95th percentile.
        speedup: median over the rounds of reference time / network time; above 1 the network is faster.
        against_fp32: the same with the time of the network in FP32 in the same runtime; None where it was not timed.
    """

    median_ms: float
    quartiles_ms: tuple[float, float]
    p95_ms: float
    speedup: float
    against_fp32: float | None


def measure_latencies(
    networks: Sequence[Network],
    reference: Network,
    crops: NDArray[np.float32],
    *,
    fp32: Sequence[int | None],
    rounds: int,
    seconds: float,
) -> tuple[int, list[Latency]]:
    """Time networks in turn, each round on another one of `crops` (N, 3, H, W).

    Stops after `rounds` rounds, or after `seconds` once at least `MINIMUM_ROUNDS` are done.

    Args:
        networks: of the same model.
        reference: what they are compared with; it is timed with them, once where it is one of them.
        crops: float32 (N, 3, H, W).
        fp32: for each network, which of them is the one in FP32 in the same runtime; None where it is not among them.
        rounds: after how many to stop.
        seconds: for each network.

    Returns:
        How many rounds were timed, and the latency of each network.
    """
    contenders = list(networks) if reference in networks else [*networks, reference]

    def run(contender: Network) -> Callable[[int], object]:
        return lambda number: contender.forward(_crop(crops, number))

    times = time_in_turn(
        [run(contender) for contender in contenders],
        warm_up=WARM_UP_ROUNDS,
        rounds=rounds,
        minimum_rounds=MINIMUM_ROUNDS,
        seconds=seconds * len(contenders),
    )
    of_reference = times[:, contenders.index(reference)]
    return len(times), [
        _latency(times[:, place], of_reference, None if full is None else times[:, full])
        for place, full in enumerate(fp32)
    ]


def _latency(times: Times, of_reference: Times, of_fp32: Times | None) -> Latency:
    first, median, third, last = (float(value) for value in np.percentile(1000 * times, [25, 50, 75, 95]))
    against_fp32 = None if of_fp32 is None else float(np.median(of_fp32 / times))
    return Latency(median, (first, third), last, float(np.median(of_reference / times)), against_fp32)


def _crop(crops: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    place = index % len(crops)
    return crops[place : place + 1]
