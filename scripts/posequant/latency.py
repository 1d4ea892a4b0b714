"""How long a network takes for one crop, told by a ratio that a busy machine does not spoil."""

import platform
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

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

    Stops after `rounds` rounds, or after `seconds` once at least `MINIMUM_ROUNDS` are done. The two swap places in
    every other round, as whatever runs second finds the caches full of the other's weights.
    """
    pair = (network, reference)
    for index in range(WARM_UP_ROUNDS):
        for contender in pair:
            contender.forward(_crop(crops, index))
    times: list[tuple[float, float]] = []
    end = perf_counter() + seconds
    with tqdm(total=rounds, desc="timing", unit="round", mininterval=2) as progress:
        while len(times) < rounds and (len(times) < MINIMUM_ROUNDS or perf_counter() < end):
            index = len(times)
            order = (0, 1) if index % 2 == 0 else (1, 0)
            measured = {contender: _seconds(pair[contender], _crop(crops, index)) for contender in order}
            times.append((measured[0], measured[1]))
            progress.update()
    milliseconds = 1000 * np.array(times)
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


def _seconds(network: Network, crop: NDArray[np.float32]) -> float:
    start = perf_counter()
    network.forward(crop)
    return perf_counter() - start


def cpu_name() -> str:
    """Return the model name of this machine's processor, as Linux tells it, or the architecture elsewhere."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
