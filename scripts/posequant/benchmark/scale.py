"""How a study grows with its jobs and its machines: what planning costs, and a model of its time on many cores."""

import re
import resource
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posequant.base.markdown import table
from posequant.base.profiling import cpu_seconds
from posequant.benchmark.run_time import Job as Measured
from posequant.workflow.costs import Network
from posequant.workflow.estimate import Job, makespan, planned_job, roughly, work

CORES = (1, 16, 64, 256)
"""Numbers of cores that the model is worked out for."""

_PAGE = """\
# Scale

`make scale` writes this page. Planning, latencies and the jobs of two small studies were measured, on {cpu}, where
other programs may have run. The times of the study of COCO are modelled: nobody ran it on these machines.

## Planning

Seconds of CPU of `snakemake -n`, the least of several rounds. The plain workflow
([plain.smk](../scripts/posequant/benchmark/plain.smk)) has the same sharded jobs, files and edges, with fixed strings
in place of our functions: it is what Snakemake itself takes.

{planning}

## The study of COCO on many cores

A model of the study `coco`: 104,125 detector boxes, two networks, ten rows. The jobs and what each waits for are those
that Snakemake plans. Each takes what [costs.py](../scripts/posequant/workflow/costs.py) says. A core is taken by the
first job that is ready and fits. The least of each column, and what is within 1% of it, is bold. Start-up is its share
of the work of cropping and predicting.

On one machine:

{local}

On a cluster that takes 30 s from the end of a job until the next can start:

{cluster}

Shards of ten minutes are the default. Smaller ones lose time to starts and to the queue. Larger ones leave cores idle
at the end, and an interruption costs more. With many cores the longest chain decides: the recipe of the larger network,
then its predictions.

## What the model is made of

Speeds of the rows with Hourglass52 at 256x256, random weights, one thread:

{rates}

Seconds of CPU of all jobs of a rule, as measured and as estimates take it.

{costs}
"""
_JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    \w+: .*\n)+)", re.MULTILINE)
_DETAIL = re.compile(r"^    (\w+): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class PlannedJob:
    """A job as a dry run shows it.

    Attributes:
        rule: its name.
        wildcards: their values, by name.
        threads: how many it has.
        input: the files that it reads.
        output: the files that it writes.
    """

    rule: str
    wildcards: Mapping[str, str]
    threads: int
    input: tuple[str, ...]
    output: tuple[str, ...]


@dataclass(frozen=True)
class Planning:
    """What a dry run took.

    Attributes:
        jobs: that it planned.
        cpu: seconds of one core.
    """

    jobs: int
    cpu: float


def dry_run(command: Sequence[str], folder: Path) -> tuple[str, float]:
    """Run a command in a folder, and return what it printed and its seconds of CPU.

    Raises:
        RuntimeError: it failed.
    """
    before = cpu_seconds(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    taken = cpu_seconds(resource.RUSAGE_CHILDREN) - before
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout, taken


def plan_in_turn(commands: Sequence[Sequence[str]], folder: Path, rounds: int) -> list[Planning]:
    """Run dry runs in turn and return, for each, its jobs and the least CPU time of its rounds."""
    runs = [[dry_run(command, folder) for command in commands] for _ in range(rounds)]
    return [
        Planning(len(planned_jobs(runs[0][place][0])), min(run[place][1] for run in runs))
        for place in range(len(commands))
    ]


def planned_jobs(text: str) -> list[PlannedJob]:
    """Return the jobs that the output of `snakemake -n` shows, in its order."""
    jobs = []
    for rule, lines in _JOB.findall(text):
        details = dict(_DETAIL.findall(lines))
        wildcards = dict(one.split("=", 1) for one in _listed(details.get("wildcards", "")))
        files = (_listed(details.get("input", "")), _listed(details.get("output", "")))
        jobs.append(PlannedJob(rule, wildcards, int(details.get("threads", 1)), *files))
    return jobs


def modelled_jobs(
    jobs: Sequence[PlannedJob], config: Mapping[str, Any], networks: Mapping[str, Network | None], people: int
) -> list[Job]:
    """Return what each of some planned jobs takes, and what it waits for.

    Args:
        jobs: of a study.
        config: the whole configuration, defaults filled in.
        networks: of each model; None where nothing is known of it.
        people: that are evaluated.
    """
    makers = {file: place for place, job in enumerate(jobs) for file in job.output}
    modelled = []
    for job in jobs:
        cost = work(
            job.rule, job.wildcards, config, network=networks.get(job.wildcards.get("model", "")), people=people
        )
        after = tuple(sorted({makers[file] for file in job.input if file in makers}))
        modelled.append(planned_job(job.rule, cost, job.output, job.threads, after))
    return modelled


def planning_table(rows: Sequence[tuple[Planning, Planning]]) -> str:
    """Return the CPU time of plans beside that of a plain workflow of as many jobs, as Markdown."""
    return table(
        [
            {
                "Jobs": f"{ours.jobs:,}",
                "This workflow": f"{ours.cpu:.1f} s",
                "Jobs of the plain one": f"{plain.jobs:,}",
                "Plain": f"{plain.cpu:.1f} s",
                "Ratio": f"{ours.cpu / plain.cpu:.2f}",
            }
            for ours, plain in rows
        ]
    )


def shards_table(plans: Mapping[float, Sequence[Job]], shards: Mapping[float, Sequence[int]], overhead: float) -> str:
    """Return the modelled time of a study on several numbers of cores, for several sizes of its shards, as Markdown.

    Args:
        plans: the jobs, by the minutes of a shard.
        shards: how many each model has, by the same.
        overhead: seconds that a cluster adds to each job.
    """
    least = {cores: min(makespan(jobs, cores, overhead) for jobs in plans.values()) for cores in CORES}
    lines = []
    for minutes, jobs in plans.items():
        times = {cores: makespan(jobs, cores, overhead) for cores in CORES}
        lines.append(
            {
                "Minutes of a shard": f"{minutes:g}",
                "Shards": " + ".join(map(str, shards[minutes])),
                "Jobs": f"{len(jobs):,}",
                **{
                    f"{cores} core{'s' * (cores > 1)}": (
                        "**{}**" if times[cores] <= 1.01 * least[cores] else "{}"
                    ).format(roughly(times[cores]))
                    for cores in CORES
                },
                "Start-up": f"{100 * start_up(jobs):.1f}%",
            }
        )
    return table(lines)


def start_up(jobs: Sequence[Job]) -> float:
    """Return the share of the work of sharded jobs, those with threads, that is start-up: what they do alone."""
    sharded = [job for job in jobs if job.threads > 1 and job.shared]
    return sum(job.alone for job in sharded) / sum(job.alone + job.shared for job in sharded)


def rates_table(gmac: float, latencies_ms: Mapping[str, float], assumed: Mapping[str, float]) -> str:
    """Return measured latencies of a network and the speeds that they mean, beside those that estimates take.

    Args:
        gmac: of the network, in billions of multiply-accumulates.
        latencies_ms: of each row, on one thread.
        assumed: what estimates take, in GMAC/s, by row.
    """
    return table(
        [
            {
                "Row": row,
                "Latency": f"{latency:.0f} ms",
                "GMAC/s": f"{1000 * gmac / latency:.0f}",
                "In estimates": f"{assumed[row]:.0f}",
            }
            for row, latency in latencies_ms.items()
        ]
    )


def costs_table(measured: Sequence[Measured], planned: Sequence[PlannedJob], estimated: Sequence[Job]) -> str:
    """Return the seconds of CPU that jobs took beside those that estimates take, by rule, as Markdown.

    Args:
        measured: what the scripts said of their time.
        planned: the jobs.
        estimated: what each of them takes.
    """
    lines = []
    for rule in dict.fromkeys(job.rule for job in planned):
        cpu = [job.cpu for job in measured if job.script == rule]
        guess = [one.alone + one.shared for job, one in zip(planned, estimated, strict=True) if job.rule == rule]
        lines.append((sum(cpu), {"Rule": rule, "Jobs": str(len(cpu)), "Estimated": f"{sum(guess):.1f} s"}))
    lines.sort(key=lambda line: -line[0])
    return table([{**line, "Measured": f"{cpu:.1f} s"} for cpu, line in lines])


def page(*, cpu: str, planning: str, rates: str, costs: Mapping[str, str], local: str, cluster: str) -> str:
    """Return docs/scale.md, from its tables.

    Args:
        cpu: name of the processor.
        planning: from `planning_table`.
        rates: from `rates_table`.
        costs: from `costs_table`, by title.
        local: from `shards_table`, without overhead.
        cluster: the same with overhead.
    """
    of_jobs = "\n\n".join(f"{title}:\n\n{one}" for title, one in costs.items())
    return _PAGE.format(cpu=cpu, planning=planning, rates=rates, costs=of_jobs, local=local, cluster=cluster)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(", ")) if text else ()
