"""How a script ends: each fault is caused for real, in a script that is run by itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.unit.test_scripts import SCRIPTS

SCRIPT = """
import sys
sys.path.insert(0, {library!r})
from posequant.base.command import command

@command
def main():
    from pathlib import Path
    from posequant.base.supervision import doing, note
    {body}

main()
"""
# ncnn does not check that a Slice says where to cut, and pnnx writes such ones.
SLICE = "7767517\n3 4\nInput in0 0 1 in0\nSlice cut 1 2 in0 a b\nBinaryOp add 2 1 a b out0\n"


def run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, body), capture_output=True, text=True, check=False)


def command(folder: Path, body: str) -> list[str]:
    script = folder / "step.py"
    script.write_text(SCRIPT.format(library=str(SCRIPTS[0].parent), body=body.replace("\n", "\n    ")))
    return [sys.executable, str(script)]


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1]


def test_crash_in_a_native_library_names_file_and_layer(tmp_path: Path) -> None:
    (tmp_path / "net.param").write_text(SLICE)
    (tmp_path / "net.bin").touch()
    body = (
        "from posequant.networks.ncnn import NcnnNetwork\n"
        f"NcnnNetwork(Path({str(tmp_path)!r}, 'net.param'), Path({str(tmp_path)!r}, 'net.bin'), 'fp32', (3, 8, 8))"
    )
    line = last_line(run(tmp_path, body))
    assert line.startswith("error: a native library crashed (SIGSEGV, which read memory that is not its own)")
    assert f"while it computed layer cut (Slice) of {tmp_path / 'net.param'} in ncnn" in line


def test_killed_step_names_what_it_did_and_memory(tmp_path: Path) -> None:
    body = (
        "note('loaded net.param')\nheld = b'1' * (200 << 20)\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    line = last_line(run(tmp_path, body))
    assert "the step was killed (SIGKILL) while it loaded net.param, probably for lack of memory: it had 0.2 GB" in line


def test_lack_of_memory_is_one_plain_line(tmp_path: Path) -> None:
    body = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\nbytearray(2 << 30)"
    done = run(tmp_path, body)
    assert last_line(done).startswith("error: there is not enough memory: it had 0.0 GB of 1.1 GB.")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("when", ["while it is written", "at its end"])
def test_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path, when: str) -> None:
    # A limit of file sizes fails as a full disk does, and needs no disk to fill.
    size = 10 << 20 if when == "while it is written" else 1000
    body = (
        "import resource, sys\nfrom posequant.base.files import whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        f"with whole(Path({str(tmp_path / 'out.bin')!r})) as draft:\n    draft.write_bytes(bytes({size}))"
    )
    done = run(tmp_path, body)
    assert last_line(done).startswith(f"error: {tmp_path / 'out.bin'}: cannot be written: the disk, a quota or a limit")
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step.py"]


def test_worker_process_that_is_killed_is_told_of(tmp_path: Path) -> None:
    body = (
        "import os\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(1) as pool:\n    pool.submit(os.kill, 0, 0).result()\n"
        "    pool.submit(os._exit, 9).result()"
    )
    assert last_line(run(tmp_path, body)).startswith("error: a worker process was killed, probably for lack of memory.")


@pytest.mark.parametrize(("body", "status"), [("", 0), ("sys.exit(3)", 3), ("sys.exit('no')", 1)])
def test_other_ends_are_passed_on(tmp_path: Path, body: str, status: int) -> None:
    assert run(tmp_path, body or "pass").returncode == status


def started(folder: Path) -> "subprocess.Popen[str]":
    body = (
        "import os, time\nfrom posequant.base.files import whole\n"
        f"with whole(Path({str(folder / 'out.txt')!r})) as draft:\n"
        "    draft.write_text('half')\n    print(os.getpid(), flush=True)\n    time.sleep(100)"
    )
    return subprocess.Popen(command(folder, body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that nobody waits for yet has ended, too.
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as step:
        assert step.stdout
        worker = int(step.stdout.readline())
        # Ctrl-C reaches both processes.
        os.kill(worker if number == signal.SIGINT else step.pid, number)
        assert step.wait(30) != 0
    assert not is_alive(worker)
    assert [path.name for path in tmp_path.iterdir()] == ["step.py"]


def test_work_ends_with_the_process_that_watches_it(tmp_path: Path) -> None:
    with started(tmp_path) as step:
        assert step.stdout
        worker = int(step.stdout.readline())
        step.kill()
        step.wait(30)
    until = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < until
        time.sleep(0.05)
