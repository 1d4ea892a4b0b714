"""What Slurm's queue says of a run's jobs that the user must know: which will never start, and why."""

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import sleep

# Reasons that no waiting mends, and those that end only when somebody does something. Source: squeue's manual, "JOB
# REASON CODES". Limits of what an account may use at a time are neither: they end with its other jobs.
_NEVER = re.compile(
    r"AccountNotAllowed|BadConstraints|Invalid\w+|Partition(Config|NodeLimit|TimeLimit)|QOSNotAllowed|QOSTimeLimit"
    r"|QOSMin\w+|(Assoc|QOS)Max\w*Per(Job|Node)\w*"
)
_HELD = re.compile(r"JobHeld\w*|launch failed|NodeDown|Nodes required|Partition(Down|Inactive)|ReqNodeNotAvail")
# How the executor names a job's step in its comment.
_COMMENT = re.compile(r"rule_(?P<rule>.+?)(?:_wildcards_(?P<place>.*))?")
_FIELDS = "%i|%T|%r|%C|%m|%l|%P|%Z|%k"


@dataclass(frozen=True)
class Waiting:
    """A job of the user's that is in Slurm's queue.

    Attributes:
        number: Slurm's, as scancel takes it.
        state: PENDING, RUNNING and so on.
        reason: why it does not run.
        cores, memory, time: what it asks for, as squeue writes it.
        partition: where.
        folder: the working folder.
        step: its rule and what of the study it is about.
    """

    number: str
    state: str
    reason: str
    cores: str
    memory: str
    time: str
    partition: str
    folder: Path
    step: str


def parse_queue(listed: str) -> Iterator[Waiting]:
    """Yield the jobs that squeue listed in the format of `_FIELDS` and that a workflow submitted."""
    for line in listed.splitlines():
        number, state, reason, cores, memory, time, partition, folder, comment = line.split("|", _FIELDS.count("|"))
        if named := _COMMENT.fullmatch(comment):
            step = " ".join(filter(None, named.groups()))
            yield Waiting(number, state, reason, cores, memory, time, partition, Path(folder), step)


def read_queue(folder: Path) -> list[Waiting]:
    """Return the user's jobs that were submitted from a folder; none where Slurm does not answer."""
    listed = _output("squeue", "--me", "--noheader", "--format", _FIELDS)
    return [job for job in parse_queue(listed) if job.folder == folder]


def complaint(job: Waiting) -> str:
    """Return what to tell of a job that will not start, or not by itself; nothing of any other."""
    if job.state != "PENDING":
        return ""
    if _HELD.match(job.reason):
        return f"warning: Slurm job {job.number} ({job.step}) waits until somebody acts: {job.reason}."
    if not _NEVER.match(job.reason):
        return ""
    return (
        f"warning: Slurm job {job.number} ({job.step}) will not start: {job.reason}. It asks for {job.cores} cores,"
        f" memory {job.memory} and time {job.time}.{_offer(job.partition)} Stop the run and ask for less:"
        " --max-threads, --set-threads or --set-resources, or the same keys in the profile (docs/cluster.md)."
    )


def watch(folder: Path, say: Callable[[str], None], seconds: float = 20) -> threading.Thread:
    """Look at the queue from time to time, in a thread that ends with the process, and say each complaint once.

    Args:
        folder: where the run submits its jobs from.
        say: what takes a message.
        seconds: how often to look.
    """
    if earlier := read_queue(folder):
        numbers = " ".join(job.number for job in earlier)
        say(
            f"warning: jobs of another run in this folder are in Slurm's queue: {numbers}. If that run is dead, its"
            f" jobs make the same files as this one's: scancel {numbers}"
        )
    thread = threading.Thread(target=_watch, args=(folder, say, seconds), daemon=True)
    thread.start()
    return thread


def _watch(folder: Path, say: Callable[[str], None], seconds: float) -> None:
    said: set[tuple[str, str]] = set()
    while True:
        sleep(seconds)
        for job in read_queue(folder):
            if (job.number, job.reason) not in said and (message := complaint(job)):
                said.add((job.number, job.reason))
                say(message)


def _offer(partition: str) -> str:
    """Return in words what a partition's largest node has; nothing where Slurm does not say."""
    lines = _output("sinfo", "--Node", "--noheader", "--partition", partition, "--format", "%c|%m|%l").splitlines()
    nodes = [line.split("|") for line in lines]
    if not nodes:
        return ""
    cores, memory = (max(int(node[field]) for node in nodes) for field in (0, 1))
    return (
        f" The nodes of partition {partition} have at most {cores} cores and {memory} MB; its time limit is"
        f" {nodes[0][2]}."
    )


def _output(*command: str) -> str:
    """Return what a program of Slurm's writes; nothing if it fails, as it does while the controller is away."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
