"""The real workflow on a real Slurm of one node, on this machine: the same figures, and all that goes wrong there.

`make test-slurm` runs it. Each fault is caused for real: jobs are cancelled, killed for memory and time, the node is
drained, Snakemake is killed.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.cluster.local_slurm import start, stop
from tests.workflow.test_workflow import MODEL, Workflow, copy_checkout

from posequant.workflow.slurm_queue import Waiting, read_queue

pytestmark = pytest.mark.slurm

STUDY: dict[str, Any] = {
    "dataset": {"synthetic": {"train_images": 12, "val_images": 12}},
    "calibration": {"people": 8},
    "variants": ["ncnn", "ncnn-int8"],
    "shards": 2,
}
TARGETS = [f"{MODEL}/{variant}/metrics.json" for variant in STUDY["variants"]]
# Waiting for Slurm ends with a failure after so many seconds.
PATIENCE = 240


class Node(NamedTuple):
    """A node of Slurm, and the folder of its logs."""

    name: str
    logs: Path


class Run:
    """Snakemake in the background, its jobs in Slurm's queue."""

    def __init__(self, folder: Path, *arguments: str, profile: str = "profiles/slurm") -> None:
        self.folder = folder
        self.log = folder / "run.log"
        command = [sys.executable, "-m", "snakemake", "--profile", profile, "--configfile", "small.yaml", *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)

    def said(self) -> str:
        return self.log.read_text()

    def queue(self, rule: str, state: str = "") -> list[Waiting]:
        """The jobs of a rule that are in the queue, in any state that is not their end unless one is named."""
        states = (state,) if state else ("PENDING", "RUNNING")
        return [job for job in read_queue(self.folder) if job.step.split()[0] == rule and job.state in states]

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        until = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < until, self.said()
            time.sleep(0.5)
        return found

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 1, self.said()
        self.wait_for(lambda: not [job for job in read_queue(self.folder) if job.state in ("PENDING", "RUNNING")])

    def finish(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self.said()


def tell(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def prepare(folder: Path, **others: Any) -> Path:
    copy_checkout(folder)
    (folder / "small.yaml").write_text(yaml.safe_dump({"studies": {"demo": STUDY}, **others}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The one node of a Slurm that runs meanwhile."""
    folder = tmp_path_factory.mktemp("slurm")
    start(folder)
    try:
        yield Node(tell("sinfo", "--noheader", "--format", "%n").strip(), folder)
    finally:
        stop()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of a run without Slurm."""
    workflow = Workflow(prepare(tmp_path_factory.mktemp("local")))
    workflow.run(*TARGETS)
    return workflow.folder


def test_study_on_slurm_survives_all_and_gives_the_figures_of_a_local_run(
    node: Node, local: Path, tmp_path: Path
) -> None:
    folder = prepare(tmp_path / "checkout")
    # Snakemake is killed, and its job with it runs on.
    first = Run(folder, "--max-threads", "2", *TARGETS)
    (orphan,) = first.wait_for(lambda: first.queue("demo_dataset", "RUNNING"))
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    tell(sys.executable, "-m", "snakemake", "-s", str(folder / "Snakefile"), "-d", str(folder), "--unlock")
    run = Run(folder, "--max-threads", "2", *TARGETS)
    told = f"jobs of another run in this folder are in Slurm's queue: {orphan.number}."
    run.wait_for(lambda: told in run.said() or not first.queue("demo_dataset"))
    tell("scancel", orphan.number)

    # One job is cancelled while it waits; one while it runs. Each is submitted again, and asks for more.
    run.wait_for(lambda: run.queue("predict", "PENDING") and run.queue("predict", "RUNNING"))
    cancelled = {run.queue("predict", state)[0].number for state in ("PENDING", "RUNNING")}
    tell("scancel", *cancelled)
    # The node is drained meanwhile: the jobs wait, and go on when it is back.
    tell("scontrol", "update", f"nodename={node.name}", "state=drain", "reason=test")
    again = run.wait_for(lambda: [job for job in run.queue("predict", "PENDING") if job.memory == "8000M"])
    assert again[0].number not in cancelled
    assert run.process.poll() is None
    tell("scontrol", "update", f"nodename={node.name}", "state=resume")
    run.finish()

    for target in TARGETS:
        here, there = (json.loads((base / target).read_text()) for base in (local, folder))
        assert here["statistics"] == there["statistics"]
        predictions = target.replace("metrics.json", "predictions.npz")
        assert (local / predictions).read_bytes() == (folder / predictions).read_bytes()


def test_out_of_memory_and_out_of_time_are_tried_again_with_more(node: Node, local: Path, tmp_path: Path) -> None:
    memory = short(local, tmp_path / "memory", f"{MODEL}/onnx/export.json", "export:mem_mb=attempt ** 3 * 250")
    # A tool that needs longer than the minute that it is given.
    tool = tmp_path / "ncnn2table"
    tool.write_text("#!/bin/sh\nsleep 1000\n")
    tool.chmod(0o755)
    tools = {"tools": {"ncnn2table": str(tool)}}
    table = f"{MODEL}/ncnn-int8/model.table"
    minutes = short(local, tmp_path / "minutes", table, "ncnn2table:runtime=attempt", **tools)
    memory.wait_for(lambda: [job for job in memory.queue("export") if job.memory == "2000M"])
    memory.finish()
    assert "exceeded memory limit" in (node.logs / "slurmd.log").read_text()
    minutes.wait_for(lambda: [job for job in minutes.queue("ncnn2table") if job.time == "2:00"])
    assert "SLURM status is: 'TIMEOUT'" in minutes.said()
    minutes.stop()


def short(local: Path, folder: Path, target: str, resource: str, **others: Any) -> Run:
    """Run one step again, with less than it needs."""
    shutil.copytree(local, folder)
    (folder / "small.yaml").write_text(yaml.safe_dump({"studies": {"demo": STUDY}, **others}))
    return Run(folder, "--max-threads", "1", "--set-resources", resource, "-f", target)


def test_job_that_can_never_start_is_told_of(local: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(local, folder)
    run = Run(folder, "--max-threads", "4", "-f", f"{MODEL}/ncnn/shards/1-of-2.npz")
    run.wait_for(lambda: "will not start" in run.said() or run.process.poll() is not None)
    assert re.search(r"Slurm job \d+ \(predict .*\) will not start: PartitionConfig. It asks for 4 cores", run.said())
    assert "have at most 2 cores" in run.said()
    run.stop()


def test_generic_profile_submits_and_sees_the_end(local: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(local, folder)
    arguments = ("--max-threads", "2", "-f", f"{MODEL}/ncnn/shards/1-of-2.npz")
    run = Run(folder, *arguments, profile="profiles/cluster-generic")
    run.finish()
    assert list((folder / ".snakemake/jobs").glob("*.log"))
