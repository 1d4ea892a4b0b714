import time

import numpy as np
from numpy.typing import NDArray

from posequant.benchmark.latency import MINIMUM_ROUNDS, measure_latency


class Sleeper:
    """A network that takes at least a known time and remembers the crops it saw."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.seen: list[float] = []

    def forward(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        assert crops.shape == (1, 3, 2, 2)
        self.seen.append(float(crops[0, 0, 0, 0]))
        time.sleep(self.seconds)
        return [crops]


CROPS = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None, None], (4, 3, 2, 2))


def test_slower_reference_gives_a_speedup_above_one() -> None:
    network, reference = Sleeper(0.001), Sleeper(0.02)
    latency = measure_latency(network, reference, CROPS, rounds=12, seconds=60)
    assert latency.rounds == 12
    assert latency.speedup > 1
    assert latency.quartiles_ms[0] <= latency.median_ms <= latency.quartiles_ms[1]
    assert latency.reference_median_ms >= 20


def test_both_networks_run_on_the_same_crops_in_turn() -> None:
    network, reference = Sleeper(0), Sleeper(0)
    measure_latency(network, reference, CROPS, rounds=12, seconds=60)
    assert network.seen == reference.seen
    assert network.seen[-12:] == [0, 1, 2, 3] * 3


def test_time_limit_ends_it_after_the_minimum_of_rounds() -> None:
    latency = measure_latency(Sleeper(0), Sleeper(0), CROPS, rounds=1000, seconds=0)
    assert latency.rounds == MINIMUM_ROUNDS
