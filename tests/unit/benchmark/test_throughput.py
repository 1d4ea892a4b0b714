import io
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.unit.evaluation_fixtures import draw_dataset, make_model

from posequant.benchmark.throughput import (
    MINIMUM_ROUNDS,
    measure_throughput,
    network_throughputs,
    people_per_round,
    throughput_page,
    throughput_table,
)
from posequant.data.crops import Cropper, crops_of_images
from posequant.data.dataset import CHUNK, by_image, evaluation_instances
from posequant.networks.opening import open_network


class Recording:
    """A network that remembers the crops it saw."""

    def __init__(self, folder: Path) -> None:
        model = make_model(folder, "msra")
        self.spec = model.spec
        self.network = open_network("pytorch", "fp32", [model.config, model.checkpoint], model.spec)
        self.seen: list[NDArray[np.float32]] = []

    def forward(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        self.seen.append(crops)
        return self.network.forward(crops)


def test_both_take_the_same_crops_in_turn(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path)
    network = Recording(tmp_path)
    instances = evaluation_instances(dataset.annotations, None)
    cropper = Cropper(network.spec)
    crops = crops_of_images(cropper, instances, dataset.images)
    found = measure_throughput(network, network.spec, instances, crops, threads=2, rounds=100, seconds=0)
    assert found.rounds == MINIMUM_ROUNDS
    assert found.people == len(instances) > CHUNK
    assert found.threads == 2
    assert found.job_per_second > 0
    assert found.ratio > 0
    chunks = -(-len(instances) // CHUNK)
    runs = [network.seen[start : start + chunks] for start in range(2, len(network.seen), chunks)]
    assert len(runs) == 2 * (MINIMUM_ROUNDS + 1)  # one of each is to warm up
    expected = cropper.normalise(crops(by_image(instances)))
    for run in runs:
        # The threads may finish in any order.
        seen = np.concatenate(sorted(run, key=lambda chunk: float(chunk[0].sum())))
        in_order = sorted(
            (expected[start : start + CHUNK] for start in range(0, len(expected), CHUNK)),
            key=lambda chunk: float(chunk[0].sum()),
        )
        np.testing.assert_array_equal(seen, np.concatenate(in_order))


class Sleeper:
    """A network that takes at least a known time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.calls = 0

    def forward(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        assert len(crops) == 1
        self.calls += 1
        time.sleep(self.seconds)
        return [crops]


def test_bare_networks_use_all_threads_in_turn() -> None:
    networks = [Sleeper(0.01), Sleeper(0.04)]
    crops = np.zeros((4, 3, 2, 2), np.float32)
    fast, slow = network_throughputs(networks, [0.01, 0.04], crops, threads=2)
    # They sleep: two threads do twice as much as one, and never more.
    assert slow < fast <= 200
    assert slow <= 50
    assert networks[0].calls == 2 * networks[1].calls


@pytest.mark.parametrize(
    ("pace", "threads", "available", "people"),
    [
        (0.25, 2, 1000, 2 * CHUNK),  # two seconds are eight people for each thread
        (0.01, 2, 10_000, 2 * 200),
        (5.0, 4, 1000, 4 * CHUNK),  # too slow: one chunk for each thread
        (0.01, 2, 30, 30),
    ],
)
def test_round_is_a_multiple_of_what_keeps_all_threads_busy(
    pace: float, threads: int, available: int, people: int
) -> None:
    assert people_per_round(pace, threads, available) == people


def test_table_shows_every_record() -> None:
    record = {
        "model": "net",
        "variant": "ncnn-int8",
        "cpu": "a CPU",
        "people": 32,
        "threads": 2,
        "rounds": 20,
        "job_per_second": 95.678,
        "network_per_second": 100.0,
        "ratio": 0.9567,
    }
    on_vulkan = {"variant": "vulkan", "device": {"name": "llvmpipe", "kind": "CPU"}}
    table = throughput_table([record, record | {"variant": "ncnn"}, record | on_vulkan])
    page = throughput_page(table)
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| net")
    ]
    assert lines[0] == ["net", "ncnn-int8", "2", "32", "20", "95.68/s", "100.00/s", "0.957"]
    no_gpu = "vulkan on llvmpipe, a driver that computes on the processor and is no GPU"
    assert [line[1] for line in lines] == ["ncnn-int8", "ncnn", no_gpu]
    assert "Measured on a CPU." in page
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert read["ratio"].tolist() == 3 * [0.9567]
