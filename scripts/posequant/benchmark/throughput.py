"""How much of a network's speed the evaluation job keeps: reading, cropping and decoding take the rest."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from posequant.base.devices import device_words
from posequant.base.markdown import table
from posequant.base.model_spec import ModelSpec
from posequant.base.timing import time_in_turn
from posequant.data.crops import Cropper, Crops
from posequant.data.dataset import CHUNK, Instances, by_image
from posequant.evaluate.predict import predict_poses
from posequant.networks.base import Network

# Long enough that starting the threads does not count, short enough for many rounds.
ROUND_SECONDS = 2.0
MINIMUM_ROUNDS = 5
# The same where many bare networks take turns in one run.
_BARE_ROUND_SECONDS = 0.02
_BARE_ROUNDS = 7
_BARE_SECONDS = 5.0


@dataclass(frozen=True)
class Throughput:
    """People per second of an evaluation job and of its network alone.

    Attributes:
        people: how many were predicted in each round, the same in all.
        threads: how many threads worked.
        rounds: how many rounds were timed; each timed both once.
        job_per_second: median over the rounds of the job: crops taken, normalised, inferred and decoded.
        network_per_second: the same of the bare network on normalised crops.
        ratio: median over the rounds of job / network.
    """

    people: int
    threads: int
    rounds: int
    job_per_second: float
    network_per_second: float
    ratio: float


def measure_throughput(
    network: Network, spec: ModelSpec, instances: Instances, crops: Crops, *, threads: int, rounds: int, seconds: float
) -> Throughput:
    """Time the prediction of people, and the network alone on what it gets of them, in turn.

    Both take the same people in the same chunks on as many threads. No flip test: it would only double the network's
    share.

    Args:
        network: loaded for `threads` threads.
        spec: the model description.
        instances: the people of an evaluation set; those of the first images, in as many whole chunks as one
            round has time for, are predicted.
        crops: gives their crops, as in the evaluation job.
        threads: how many threads work.
        rounds: after how many rounds to stop.
        seconds: after how many to stop, once at least `MINIMUM_ROUNDS` rounds are done.

    Raises:
        InputError: as `predict_poses`.
    """
    normalise = Cropper(spec).normalise
    order = by_image(instances)
    first = normalise(crops(order[:CHUNK]))
    network.forward(first)  # the first inference sets up what later ones use
    start = perf_counter()
    network.forward(first)
    pace = (perf_counter() - start) / len(first)
    order = order[: people_per_round(pace, threads, len(instances))]
    people = instances.select(order)
    chunks = [normalise(crops(order[start : start + CHUNK])) for start in range(0, len(order), CHUNK)]

    def crops_of_people(places: NDArray[np.int64]) -> NDArray[np.uint8]:
        return crops(order[places])

    def job(_: int) -> None:
        predict_poses(network, spec, people, crops_of_people, flip_test=False, threads=threads, show_progress=False)

    def bare(_: int) -> None:
        _infer(network, chunks, threads)

    times = time_in_turn([job, bare], warm_up=1, rounds=rounds, minimum_rounds=MINIMUM_ROUNDS, seconds=seconds)
    job_time, bare_time = np.median(times, axis=0)
    return Throughput(
        people=len(people),
        threads=threads,
        rounds=len(times),
        job_per_second=float(len(people) / job_time),
        network_per_second=float(len(people) / bare_time),
        ratio=float(np.median(times[:, 1] / times[:, 0])),
    )


def network_throughputs(
    networks: Sequence[Network], latencies: Sequence[float], crops: NDArray[np.float32], threads: int
) -> list[float]:
    """Return how many crops a second each of some networks infers with all threads, the median over rounds in turn.

    Args:
        networks: loaded for `threads` threads.
        latencies: of a single crop on one thread each, in seconds.
        crops: float32 (N, 3, H, W), of which each round takes as many as it has time for.
        threads: how many threads work.
    """
    numbers = [threads * max(1, round(_BARE_ROUND_SECONDS / latency)) for latency in latencies]

    def run(network: Network, number: int) -> Callable[[int], object]:
        singles = [crops[place % len(crops)][np.newaxis] for place in range(number)]
        return lambda _: _infer(network, singles, threads)

    times = time_in_turn(
        [run(network, number) for network, number in zip(networks, numbers, strict=True)],
        warm_up=1,
        rounds=_BARE_ROUNDS,
        minimum_rounds=MINIMUM_ROUNDS,
        seconds=_BARE_SECONDS * len(networks),
    )
    return [float(number / median) for number, median in zip(numbers, np.median(times, axis=0), strict=True)]


def throughput_table(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one line for each record: the fields of `Throughput`, after `model`, `variant`, `cpu` and `device`."""
    fields = ["model", "variant", "cpu", "device", *Throughput.__annotations__]
    said = [{**record, "device": device_words(record["device"]) if "device" in record else ""} for record in records]
    return pd.DataFrame([{field: record[field] for field in fields} for record in said])


def throughput_page(records: pd.DataFrame) -> str:
    """Return the table of `throughput_table` in words and Markdown."""
    shown = [
        {
            "Model": str(record["model"]),
            "Variant": str(record["variant"]) + (f" on {record['device']}" if record["device"] else ""),
            "Threads": str(record["threads"]),
            "People": str(record["people"]),
            "Rounds": str(record["rounds"]),
            "Prediction": f"{record['job_per_second']:.2f}/s",
            "Network alone": f"{record['network_per_second']:.2f}/s",
            "Ratio": f"{record['ratio']:.3f}",
        }
        for record in records.to_dict("records")
    ]
    return (
        "# Throughput\n\n"
        f"{table(shown)}\n\n"
        "People per second. Prediction: crops read (cut out of the images, where they are too large to be kept), "
        "normalised, inferred and decoded, without flip test. Network alone: the same people, normalised in advance, "
        "with the same threads. Rounds of the two alternate in one run; the ratio is the median over the rounds. "
        f"Measured on {', '.join(sorted(set(records['cpu'])))}.\n"
    )


def people_per_round(pace: float, threads: int, available: int) -> int:
    """Return for how many people a round has time: a multiple of what keeps all threads busy to the end.

    Args:
        pace: seconds that one thread takes for a person.
        threads: how many threads work.
        available: how many people there are; the result is not larger.
    """
    block = CHUNK * threads
    return min(available, block * max(1, round(ROUND_SECONDS / pace / CHUNK)))


def _infer(network: Network, chunks: Sequence[NDArray[np.float32]], threads: int) -> None:
    with ThreadPoolExecutor(threads) as executor:
        for _ in executor.map(network.forward, chunks):
            pass
