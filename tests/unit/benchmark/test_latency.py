import runpy
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.benchmark.latency import MINIMUM_ROUNDS, WARM_UP_ROUNDS, measure_latencies


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
    networks = [Sleeper(0.001), Sleeper(0.01)]
    rounds, (fast, middling) = measure_latencies(
        networks, Sleeper(0.03), CROPS, fp32=[None, None], rounds=12, seconds=60
    )
    assert rounds == 12
    assert fast.speedup > middling.speedup > 1
    for latency, least in ((fast, 1), (middling, 10)):
        assert least <= latency.quartiles_ms[0] <= latency.median_ms <= latency.quartiles_ms[1] <= latency.p95_ms
    assert fast.against_fp32 is middling.against_fp32 is None


def test_networks_are_compared_with_fp32_of_their_runtime() -> None:
    networks = [Sleeper(0.03), Sleeper(0.001), Sleeper(0.01)]
    _, latencies = measure_latencies(networks, Sleeper(0), CROPS, fp32=[0, 0, None], rounds=12, seconds=60)
    full, int8, alone = (latency.against_fp32 for latency in latencies)
    assert full == 1
    assert int8 is not None
    assert int8 > 1
    assert alone is None


def test_all_networks_run_on_the_same_crops_in_turn() -> None:
    networks, reference = [Sleeper(0), Sleeper(0), Sleeper(0)], Sleeper(0)
    measure_latencies(networks, reference, CROPS, fp32=[None] * len(networks), rounds=12, seconds=60)
    for network in networks:
        assert network.seen == reference.seen
    assert reference.seen[-12:] == [0, 1, 2, 3] * 3


def test_reference_that_is_a_row_is_timed_once() -> None:
    networks = [Sleeper(0.001), Sleeper(0.002)]
    _, latencies = measure_latencies(networks, networks[1], CROPS, fp32=[None] * len(networks), rounds=12, seconds=60)
    assert latencies[1].speedup == 1
    assert latencies[0].speedup > 1
    assert len(networks[1].seen) == len(networks[0].seen) == 12 + WARM_UP_ROUNDS


def test_time_limit_ends_it_after_the_minimum_of_rounds() -> None:
    rounds, _ = measure_latencies([Sleeper(0)], Sleeper(0), CROPS, fp32=[None], rounds=1000, seconds=0)
    assert rounds == MINIMUM_ROUNDS


def test_rows_of_the_command_line_are_named_once_and_whole() -> None:
    parse_rows = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "latency.py"))["parse_rows"]
    row = ["ncnn", "ncnn", "fp32", "net.param", "net.bin"]
    assert parse_rows([row]) == {"ncnn": ("ncnn", "fp32", [Path("net.param"), Path("net.bin")])}
    with pytest.raises(InputError, match="--row ncnn: there are two rows of this name"):
        parse_rows([row, row])
    with pytest.raises(InputError, match="--row ncnn ncnn fp32: give a name"):
        parse_rows([row[:3]])
