import os
import subprocess
import sys
from pathlib import Path

import pytest

from posequant.benchmark.run_time import Job, Run, covered, describe, watch

SCRIPTS = Path(__file__).parents[3] / "scripts"
# Named as a rule: imports something late, computes and sleeps.
SCRIPT = """
import sys
sys.path.insert(0, {scripts!r})
from posequant.base.command import command
from posequant.base.errors import InputError

@command
def main():
    import time
    sys.path.insert(0, {folder!r})
    import slow
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    time.sleep(0.3)
    if "--fail" in sys.argv:
        raise InputError("no")

main()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "predict.py"
    path.write_text(SCRIPT.format(scripts=str(SCRIPTS), folder=str(tmp_path)))
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.2)\nimport slower\n")
    (tmp_path / "slower.py").write_text("import time\ntime.sleep(0.2)\n")
    return path


@pytest.mark.parametrize("option", ["", "--fail"])
def test_start_up_imports_work_and_waiting_are_told_apart(script: Path, option: str) -> None:
    run = watch(["bash", "-c", f"sleep 0.2; {sys.executable} {script} {option}; status=$?; sleep 0.2; exit $status"])
    (job,) = run.jobs
    assert job.script == "predict"
    assert run.status == bool(option)
    assert 0.4 <= job.imports < 0.6  # nested ones count once
    assert 0 < job.start_up < job.wall - job.imports
    assert job.cpu >= 0.3
    assert job.work >= 0.6
    assert job.waiting >= 0.7 - 0.1  # asleep: twice in imports, once in its work
    assert job.start_up + job.imports + job.work == pytest.approx(job.wall)
    assert run.cpu >= job.cpu
    # A process's start is known to a tick of the kernel's clock, which may be taken from the time before it.
    assert 0.4 - 1 / os.sysconf("SC_CLK_TCK") <= run.idle < run.wall - job.work


def test_nothing_is_recorded_unless_asked_for(script: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*.json"))
    subprocess.run([sys.executable, script], check=True, cwd=tmp_path)
    assert set(tmp_path.rglob("*.json")) == before


def test_time_in_several_spans_counts_once() -> None:
    assert covered([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == pytest.approx(4)
    assert covered([]) == 0


def test_the_costliest_rule_comes_first() -> None:
    jobs = [Job("evaluate", 0, 2, 0.1, 0.2, 1.0), Job("predict", 0, 4, 0.1, 0.4, 6.0), Job("evaluate", 2, 4, 0.1, 0, 1)]
    page = describe(Run(jobs, 0, 10, 9.5, 6))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[0:1] == "|"]
    assert lines[0] == ["Rule", "Jobs", "CPU", "Wall", "Start-up", "Imports", "Work", "Waiting"]
    assert lines[2:] == [
        ["predict", "1", "6.0", "4.0", "0.1", "0.4", "3.5", "0.0"],
        ["evaluate", "2", "2.0", "4.0", "0.2", "0.2", "3.6", "2.0"],
        ["all", "3", "8.0", "8.0", "0.3", "0.6", "7.1", "2.0"],
    ]
    assert "10.0 s of wall time, 9.5 s of CPU: 8.0 s in the jobs, 1.5 s in Snakemake. For 6.0 s no job ran." in page
