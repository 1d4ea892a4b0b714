"""How long jobs take on a number of cores, and what is said of a run before it starts."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posequant.workflow.costs import (
    Network,
    Work,
    bytes_of,
    crops_bytes,
    download_bytes,
    download_seconds,
    row_seconds,
    seconds_of,
)

# Estimates are rough: an hour is said in steps of ten minutes, a minute in steps of ten seconds.
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
# Less is not worth a word.
_LEAST_BYTES, _LEAST_SECONDS = 1e6, 20
# A run beyond that is worth a quick answer first, and that takes no longer than this: some numbers of people.
_LONG, _QUICK = _HOUR, 75 * _MINUTE
_PEOPLE = (5000, 2000, 1000, 500, 200, 100)
# How many cores a larger machine has.
_MANY_CORES = 16


@dataclass(frozen=True)
class Job:
    """A job, and what it waits for.

    Attributes:
        alone: seconds that it computes on one core, whatever it has.
        shared: seconds of one core that its threads divide among them.
        threads: how many it has.
        after: the places of the jobs that must end before, in the sequence of all.
        what: it writes, in a word.
        bytes: that it writes.
    """

    alone: float
    shared: float = 0.0
    threads: int = 1
    after: tuple[int, ...] = ()
    what: str = ""
    bytes: float = 0.0

    def seconds(self, cores: int) -> float:
        """Return how long it takes where there are so many cores."""
        return self.alone + self.shared / min(self.threads, cores)


def work(
    rule: str, wildcards: Mapping[str, str], config: Mapping[str, Any], *, network: Network | None, people: int | None
) -> Work:
    """Return what a job works on.

    Args:
        rule: its name.
        wildcards: its wildcards, by name.
        config: the whole configuration.
        network: of its model, if it is about one and that is known.
        people: of its study, if it is about one and that is known.
    """
    size = network or Network()
    if "study" not in wildcards:
        return Work(size)
    study = wildcards["study"]
    settings = config["studies"][study]
    rows = settings["variants"] if rule == "latency" else [wildcards["variant"]] if "variant" in wildcards else []
    drawn = settings["dataset"].get("synthetic", {})
    everyone = people or 0
    return Work(
        size,
        people=everyone // int(wildcards.get("shards", 1)),
        calibration=int(wildcards.get("people", settings["calibration"]["people"])),
        images=drawn.get("train_images", 0) + drawn.get("val_images", 0),
        rows=tuple(row_seconds(row, size, config, study) for row in rows),
        kept=crops_bytes(size, everyone) <= 1e9 * settings["crops"]["limit_gb"],
    )


def part_of(shard: int, shards: int, everyone: int, fewer: int) -> int:
    """Return how many people a shard of `everyone` has where only the first `fewer` are evaluated; or more, if that is.

    Shards keep their size as long as there are people; those behind have nobody. More people share the same shards.
    """
    if fewer >= everyone:
        return fewer // shards
    size = -(-everyone // shards)
    return min(size, max(0, fewer - (shard - 1) * size))


def planned_job(rule: str, work: Work, output: Sequence[str], threads: int, after: tuple[int, ...]) -> Job:
    """Return a job of a rule: what it takes, and the `output` that it writes."""
    if rule in ("download", "unpack_file", "unpack_folder"):
        count = download_bytes(output[0])
        return Job(download_seconds(count), after=after, what="downloads", bytes=count)
    what, count = bytes_of(rule, work)
    return Job(*seconds_of(rule, work), threads, after, what, count)


def makespan(jobs: Sequence[Job], cores: int, overhead: float = 0.0) -> float:
    """Return in how many seconds all jobs are done: list scheduling, the first job that is ready and fits is started.

    Args:
        jobs: each waits for some before or behind it; in no circle.
        cores: how many there are. A job with more threads takes all.
        overhead: seconds from the end of a job until those that wait for it can start, as of a cluster's queue. No core
            is taken meanwhile.
    """
    followers: dict[int, list[int]] = defaultdict(list)
    waits = [len(job.after) for job in jobs]
    for place, job in enumerate(jobs):
        for before in job.after:
            followers[before].append(place)
    # Ready jobs, by how many cores they take.
    ready: dict[int, list[int]] = defaultdict(list)
    # What happens next: a job's cores become free; then it is known to have ended.
    events: list[tuple[float, int, int]] = []
    freed, ended = 0, 1
    now, free = 0.0, cores

    def enter(place: int) -> None:
        heapq.heappush(ready[min(jobs[place].threads, cores)], place)

    for place, count in enumerate(waits):
        if not count:
            enter(place)
    while True:
        while fitting := [queue[0] for size, queue in ready.items() if queue and size <= free]:
            place = min(fitting)
            size = min(jobs[place].threads, cores)
            heapq.heappop(ready[size])
            free -= size
            end = now + jobs[place].seconds(cores)
            heapq.heappush(events, (end, freed, place))
            heapq.heappush(events, (end + overhead, ended, place))
        if not events:
            return now
        now, kind, place = heapq.heappop(events)
        if kind == freed:
            free += min(jobs[place].threads, cores)
            continue
        for follower in followers[place]:
            waits[follower] -= 1
            if not waits[follower]:
                enter(follower)


def roughly(seconds: float) -> str:
    """Return a duration as an estimate may name it: `40 s`, `5 min`, `3 h 20 min`, `2 days 5 h`."""
    if seconds < 55:
        return f"{max(10, 10 * round(seconds / 10))} s"
    if seconds < 55 * _MINUTE:
        return f"{max(1, round(seconds / _MINUTE))} min"
    if seconds < 2 * _DAY:
        hours, minutes = divmod(10 * round(seconds / (10 * _MINUTE)), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / _HOUR), 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


def size(count: float) -> str:
    """Return a number of bytes: `40 MB`, `2.1 GB`, `120 GB`."""
    if count < 1e9:
        return f"{max(1, round(count / 1e6))} MB"
    return f"{count / 1e9:.1f} GB" if count < 1e10 else f"{count / 1e9:.0f} GB"


def size_of_study(people: int, boxes: bool, rows: Sequence[tuple[str, str]]) -> str:
    """Return what is predicted, in words: `104,125 boxes x 10 rows x 2 networks`.

    Args:
        people: how many are evaluated.
        boxes: whether they are boxes of a detector.
        rows: that are predicted, each a network and a variant.
    """
    networks = len({network for network, _ in rows})
    each = len(rows) // networks
    said = f"{people:,} {'boxes' if boxes else 'people'} x {each} row{'s' if each > 1 else ''}"
    if networks * each != len(rows):
        return f"{people:,} {'boxes' if boxes else 'people'} x {len(rows)} rows of {networks} networks"
    return f"{said} x {networks} networks" if networks > 1 else said


def long_run(
    what: str,
    full: Sequence[Job],
    cores: int,
    quick: Callable[[int], Sequence[Job]] | None = None,
    everyone: int | None = None,
) -> str:
    """Return what is said of a study that takes more than an hour: how long, on more cores, and with fewer people.

    Args:
        what: it predicts, as `size_of_study`.
        full: the jobs that are to run, with all people.
        cores: on how many.
        quick: returns the jobs with so many annotated people; None where fewer are evaluated already.
        everyone: how many annotated people there are, where that is known.

    Returns:
        A sentence, or nothing of a shorter study.
    """
    seconds = makespan(full, cores)
    if seconds <= _LONG:
        return ""
    said = f"The full study, {what}: about {roughly(seconds)} on {cores} core{'s' if cores > 1 else ''}"
    if cores < _MANY_CORES:
        said += f", {roughly(makespan(full, _MANY_CORES))} on {_MANY_CORES}"
    if quick is not None and everyone is not None:
        offers = [(people, makespan(quick(people), cores)) for people in _PEOPLE if people < everyone]
        offers = [offer for offer in offers if offer[1] <= seconds / 2]
        if offers:
            people, shorter = next((offer for offer in offers if offer[1] <= _QUICK), offers[-1])
            said += f"; a quick answer first, --config people={people}: {roughly(shorter)}"
    return f"{said}."


def announcement(jobs: Sequence[Job], cores: int, free: float) -> tuple[str, str]:
    """Return what a run says before it starts, and a warning where the disk is too small; nothing of a short run.

    Args:
        jobs: that it runs.
        cores: on how many.
        free: bytes that the disk has left.
    """
    disk: dict[str, float] = defaultdict(float)
    for job in jobs:
        disk[job.what] += job.bytes
    total = sum(disk.values())
    largest_first = sorted(disk.items(), key=lambda part: -part[1])
    parts = ", ".join(f"{what} {size(count)}" for what, count in largest_first if count >= _LEAST_BYTES)
    seconds = makespan(jobs, cores)
    if seconds < _LEAST_SECONDS:
        return "", ""
    said = f"Estimate: about {roughly(seconds)} on {cores} core{'s' if cores > 1 else ''}"
    if total >= _LEAST_BYTES:
        said += f", {size(total)} of disk ({parts}); {size(free)} are free"
    warning = ""
    if total > free:
        warning = (
            f"warning: the disk may be too small: about {size(total)} are written, and {size(free)} are free. If the "
            "run breaks off, make room and give the same command again: it goes on where it stopped."
        )
    return f"{said}.", warning
