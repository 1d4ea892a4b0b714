"""What is told of Slurm's queue; the queue itself is real in tests/cluster."""

from dataclasses import replace
from pathlib import Path

import pytest

from posequant.workflow.slurm_queue import Waiting, complaint, parse_queue, read_queue

LISTED = (
    "7|PENDING|Priority|4|8000M|4:00:00|main|/home/me/work|rule_predict_wildcards_demo_net_ncnn_1_2\n"
    "9|RUNNING|None|1|2000M|10:00|main|/home/me/work|(null)\n"
)
JOB = Waiting("7", "PENDING", "Priority", "4", "8000M", "4:00:00", "main", Path("/home/me/work"), "predict demo_net")


def test_jobs_of_a_workflow_are_read() -> None:
    first, *_ = parse_queue(LISTED.splitlines()[0])
    assert first == replace(JOB, step="predict demo_net_ncnn_1_2")
    assert not list(parse_queue(LISTED.splitlines()[1]))


@pytest.mark.parametrize("reason", ["PartitionConfig", "BadConstraints", "PartitionTimeLimit", "QOSMaxCpuPerJobLimit"])
def test_job_that_can_never_start_is_complained_of(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = complaint(replace(JOB, reason=reason))
    assert said.startswith(f"warning: Slurm job 7 (predict demo_net) will not start: {reason}. It asks for 4 cores")


@pytest.mark.parametrize("reason", ["Priority", "Resources", "QOSMaxJobsPerUserLimit", "Dependency", "BeginTime"])
def test_job_that_will_start_is_not(reason: str) -> None:
    assert complaint(replace(JOB, reason=reason)) == ""


def test_held_job_waits_for_somebody() -> None:
    said = complaint(replace(JOB, reason="JobHeldAdmin"))
    assert said == "warning: Slurm job 7 (predict demo_net) waits until somebody acts: JobHeldAdmin."
    assert complaint(replace(JOB, reason="JobHeldAdmin", state="RUNNING")) == ""


def test_without_slurm_there_is_no_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert read_queue(tmp_path) == []
