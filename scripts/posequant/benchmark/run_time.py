"""Where the time of a run went: start-up, imports, work and waiting, by rule."""

import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posequant.base.markdown import table
from posequant.base.profiling import VARIABLE, cpu_seconds


@dataclass(frozen=True)
class Job:
    """What a script said of its time, in seconds.

    Attributes:
        script: its name, which is that of its rule.
        start: when it was started, since the epoch.
        end: when it ended.
        start_up: from the start until its main function began: Python, and what the script imports first.
        imports: what it imported later.
        cpu: of all its threads and processes.
    """

    script: str
    start: float
    end: float
    start_up: float
    imports: float
    cpu: float

    @property
    def wall(self) -> float:
        """From start to end."""
        return self.end - self.start

    @property
    def work(self) -> float:
        """What is neither start-up nor imports."""
        return self.wall - self.start_up - self.imports

    @property
    def waiting(self) -> float:
        """In which it computed nothing: it waited for a core, the disk or another process. With threads, at least."""
        return max(0.0, self.wall - self.cpu)


@dataclass(frozen=True)
class Run:
    """A command that started jobs.

    Attributes:
        jobs: those that said something of their time.
        status: its exit status.
        wall: how long it took, in seconds.
        cpu: of the command and all jobs.
        idle: seconds of the wall time in which no job ran.
    """

    jobs: Sequence[Job]
    status: int
    wall: float
    cpu: float
    idle: float


def watch(command: Sequence[str]) -> Run:
    """Run a command whose jobs are scripts of this project, and return where its time went."""
    with tempfile.TemporaryDirectory() as folder:
        before, start = cpu_seconds(resource.RUSAGE_CHILDREN), time.time()
        status = subprocess.run(command, env={**os.environ, VARIABLE: folder}, check=False).returncode
        end, cpu = time.time(), cpu_seconds(resource.RUSAGE_CHILDREN) - before
        jobs = [Job(**json.loads(path.read_text())) for path in sorted(Path(folder).iterdir())]
    busy = covered([(max(job.start, start), min(job.end, end)) for job in jobs])
    return Run(jobs, status, end - start, cpu, end - start - busy)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return how much of the time lies in at least one of the spans from a start to an end."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def describe(run: Run) -> str:
    """Return where the time of a run went, in words and a table, the costliest rules first."""
    by_script: dict[str, list[Job]] = {}
    for job in run.jobs:
        by_script.setdefault(job.script, []).append(job)
    order = sorted(by_script, key=lambda script: -sum(job.cpu for job in by_script[script]))
    lines = [_line(script, by_script[script]) for script in order]
    of_jobs = sum(job.cpu for job in run.jobs)
    return (
        f"{table([*lines, _line('all', run.jobs)])}\n\n"
        f"Seconds, summed over the jobs of a rule. {run.wall:.1f} s of wall time, {run.cpu:.1f} s of CPU: "
        f"{of_jobs:.1f} s in the jobs, {run.cpu - of_jobs:.1f} s in Snakemake. For {run.idle:.1f} s no job ran.\n\n"
        "Start-up: Python and what a script imports before it reads its options. Imports: what it imports later. Work: "
        "the rest. Waiting: wall time without CPU time, for a core, the disk or a process; a job with several threads "
        "may wait more than it says.\n"
    )


def _line(name: str, jobs: Sequence[Job]) -> dict[str, str]:
    columns: dict[str, Any] = {"CPU": "cpu", "Wall": "wall", "Start-up": "start_up", "Imports": "imports"}
    columns |= {"Work": "work", "Waiting": "waiting"}
    sums = {title: sum(getattr(job, key) for job in jobs) for title, key in columns.items()}
    return {"Rule": name, "Jobs": str(len(jobs)), **{title: f"{value:.1f}" for title, value in sums.items()}}
