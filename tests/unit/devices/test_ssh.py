"""Devices over ssh: a real sshd on the loopback address, its connection broken, its disk full, and what it may lack."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from tests.unit.pose_fixtures import SPEC, pose_network
from tests.unit.sshd_fixtures import Sshd, needs_sshd, sshd

from posequant.base.errors import InputError
from posequant.devices import RUNNER, ssh
from posequant.devices.exchange import Result, Way, write_people
from posequant.devices.job import write_package
from posequant.devices.ssh import Board, Job, measure_jobs
from posequant.workflow.settings.devices import Device

pytestmark = needs_sshd
PAUSES = (0.1,) * 5


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("device")) as started:
        yield started


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Way]:
    folder = tmp_path_factory.mktemp("networks")
    files = folder / "model.param", folder / "model.bin"
    pose_network().write(*files)
    return {"ncnn": Way(files, "fp32"), "ncnn-fp16": Way(files, "fp16")}


def make_job(folder: Path, ways: dict[str, Way], people: int = 20) -> Job:
    folder.mkdir(exist_ok=True)
    write_package(folder / "networks.zip", SPEC, ways)
    width, height = SPEC.input_size
    crops = np.random.default_rng(0).integers(0, 255, (people, height, width, 3), dtype=np.uint8)
    write_people(folder / "people.npz", crops)
    return Job(folder / "networks.zip", folder / "people.npz")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, ways: dict[str, Way]) -> Job:
    return make_job(tmp_path_factory.mktemp("job"), ways)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def message_of(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_outputs_are_those_of_the_networks_here(device: Sshd, job: Job, ways: dict[str, Way], tmp_path: Path) -> None:
    measure_jobs(Board("pi5", device.settings()), {"small": job}, tmp_path / "measured")
    crops = np.load(job.people)["crops"]
    normalised = crops.transpose(0, 3, 1, 2)[:, ::-1].astype(np.float32, order="C")
    result = Result(tmp_path / "measured" / "small.zip")
    for name, way in ways.items():
        network = way.network(SPEC)
        (there,), (here,) = result.outputs(name, network), network.forward(normalised)
        np.testing.assert_array_equal(there, here)
    assert [path.name for path in tmp_path.iterdir()] == ["measured"]
    assert result.names(r"\..*") == []


def test_runner_alone_stays_there(device: Sshd, job: Job, tmp_path: Path) -> None:
    Board("pi5", device.settings()).measure(job, tmp_path)
    assert files_in(device.folder / "there") == {"posequant/runner.py"}


def test_nothing_stays_there_where_nothing_is_to_be_kept(tmp_path: Path, job: Job) -> None:
    with sshd(tmp_path / "device") as device:
        measure_jobs(Board("pi5", device.settings(keep=False)), {"small": job}, tmp_path / "measured")
        assert not device.place.exists()
        assert not files_in(device.folder / "there")


def test_what_is_not_posequants_stays_where_nothing_is_to_be_kept(tmp_path: Path, job: Job) -> None:
    with sshd(tmp_path / "device") as device:
        (device.place / "venv").mkdir(parents=True)
        (device.place / "venv" / "of_mine").write_text("")
        measure_jobs(Board("pi5", device.settings(keep=False)), {"small": job}, tmp_path / "measured")
        assert files_in(device.place) == {"venv/of_mine"}


def test_environment_and_runner_of_others_are_refused(tmp_path: Path, job: Job) -> None:
    with sshd(tmp_path / "device") as device:
        (device.place / "venv").mkdir(parents=True)
        (device.place / "venv" / "of_mine").write_text("")
        board = Board("pi5", device.settings(python=None))
        refused = message_of(lambda: board.measure(job, tmp_path / "pieces"))
        assert f"{device.place}/venv: is there already, and is not PoseQuant's. Choose another `folder`" in refused
        (device.place / "runner.py").write_text("print('mine')")
        assert f"{device.place}/runner.py is there already, and is not of PoseQuant" in message_of(board.facts)
        assert files_in(device.place) == {"venv/of_mine", "runner.py"}
        assert (device.place / "runner.py").read_text() == "print('mine')"


@pytest.mark.parametrize("folder", ["~/..", "/home/pi/../", "~/.", "there"])
def test_folder_is_one_of_its_own(folder: str) -> None:
    with pytest.raises(ValueError, match="is not a folder of its own"):
        Device(ssh="pi", folder=folder)


ARM = RUNNER.parents[3] / ".arm"


@pytest.mark.skipif(not (ARM / "setup.json").is_file(), reason="ARM is not emulated here: run `make arm`")
def test_device_that_is_an_emulated_arm_core(device: Sshd, ways: dict[str, Way], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nexport PYTHONHOME={ARM}/root/usr PYTHONPATH={ARM}/site QEMU_LD_PREFIX={ARM}/root\n"
        f'exec {ARM}/qemu-aarch64-static -cpu cortex-a76 {ARM}/root/usr/bin/python3.11 "$@"\n'
    )
    python.chmod(0o755)
    job = make_job(tmp_path, {"ncnn": ways["ncnn"]}, people=2)
    settings = device.settings(python=str(python), latency=False)
    measure_jobs(Board("pi5", settings), {"small": job}, tmp_path / "measured")
    result = Result(tmp_path / "measured" / "small.zip")
    facts = result.json("facts.json")
    assert (facts["architecture"], facts["features"]) == ("aarch64", ["NEON", "FP16", "dotprod"])
    assert len(result.outputs("ncnn", ways["ncnn"].network(SPEC))[0]) == 2
    assert result.names("latency-.*") == []


def test_python_and_folder_in_the_home_folder_there(tmp_path: Path) -> None:
    home = tmp_path / "home of pi"
    home.mkdir()
    (home / "my python").symlink_to(sys.executable)
    with sshd(tmp_path / "device", {"HOME": f"'{home}'"}) as device:
        assert Board("pi5", device.settings(python="~/my python", folder="~/its own")).facts()["cores"]
    assert files_in(home) == {"my python", "its own/runner.py"}


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A Python that has no packages."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_facts_need_no_packages_there(device: Sshd, bare: str) -> None:
    facts = Board("pi5", device.settings(python=bare)).facts()
    assert facts["versions"] == {}
    assert facts["memory_mb"] > 0
    assert facts["cores"]


class Measuring(Thread):
    """A board that measures in a thread, and what became of it."""

    def __init__(self, board: Board, job: Job, folder: Path) -> None:
        super().__init__()
        self.board, self.job, self.folder = board, job, folder
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.board.measure(self.job, self.folder)
        except InputError as error:
            self.error = error

    def pieces(self) -> dict[str, int]:
        """The pieces that are here, with the time of each."""
        found = self.folder.glob("*/[a-z]*")
        return {path.name: path.stat().st_mtime_ns for path in found}

    def wait_for(self, piece: str) -> dict[str, int]:
        """Wait until a piece is here; return those that are."""
        while piece not in self.pieces():
            assert self.is_alive(), self.error
            time.sleep(0.002)
        return self.pieces()


def test_jobs_of_others_that_are_not_finished_are_named_and_left(
    job: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with sshd(tmp_path / "device") as device:
        (device.place / "jobs" / "other").mkdir(parents=True)
        board = Board("pi5", device.settings())
        board.measure(job, tmp_path / "pieces")
        assert "notice: device pi5: 1 jobs that were not finished are left in" in capfd.readouterr().err
        assert "/posequant/jobs: has jobs that are not finished: other." in message_of(board.remove)
        assert (device.place / "jobs" / "other").is_dir()


def test_broken_connection_is_taken_up_where_it_ended(
    device: Sshd, ways: dict[str, Way], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_job(tmp_path, ways, people=400)
    measuring = Measuring(Board("pi5", device.settings(), PAUSES), job, tmp_path / "pieces")
    before = measuring.wait_for("outputs-ncnn-00000.npz")
    assert device.break_connections()
    measuring.join()
    assert measuring.error is None
    after = measuring.pieces()
    assert before.items() <= after.items()
    assert "outputs-ncnn-fp16-00392.npz" in after
    assert "outputs-ncnn-fp16-00392.npz" not in before
    assert "device pi5: the connection was lost" in capfd.readouterr().err


def test_connection_that_stays_away_ends_with_what_to_do_and_the_next_run_goes_on(
    device: Sshd, ways: dict[str, Way], tmp_path: Path
) -> None:
    job = make_job(tmp_path, ways, people=400)
    measuring = Measuring(Board("pi5", device.settings(), ()), job, tmp_path / "pieces")
    measuring.wait_for("outputs-ncnn-00000.npz")
    device.break_connections()
    measuring.join()
    assert "the connection was lost, and 0 new tries failed" in str(measuring.error)
    assert "Run the same command again: it goes on from here" in str(measuring.error)
    before = measuring.pieces()
    again = Measuring(Board("pi5", device.settings(), ()), job, tmp_path / "pieces")
    again.join()
    assert again.error is None
    assert before.items() <= again.pieces().items()


def test_model_that_is_done_is_not_done_again_after_a_break(
    job: Job, ways: dict[str, Way], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = make_job(tmp_path / "other", ways, people=400)
    jobs, target = {"small": job, "other": other}, tmp_path / "results" / "measured"
    pieces = target.parent / ".measured.pieces"
    with sshd(tmp_path / "device") as device, ThreadPoolExecutor(1) as pool:
        board = Board("pi5", device.settings(keep=False, latency=False), ())
        measuring = pool.submit(measure_jobs, board, jobs, target)
        while not (pieces / other.name(board._options) / "outputs-ncnn-00000.npz").exists():
            assert not measuring.done(), measuring.result()
            time.sleep(0.002)
        device.break_connections()
        assert "the connection was lost" in message_of(measuring.result)
        assert [path.name for path in target.parent.iterdir()] == [".measured.pieces"]
        capfd.readouterr()
        measure_jobs(board, jobs, target)
    # Neither sent again nor begun again: what is said is of the other model.
    said = capfd.readouterr().err
    assert "sending" not in said
    assert "facts.json" not in said
    assert "outputs-ncnn-fp16-00392.npz" in said
    assert files_in(target) == {"small.zip", "other.zip"}


def test_results_are_safe_where_what_is_there_cannot_be_removed(
    job: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with sshd(tmp_path / "device") as device:
        (device.place / "jobs" / "another").mkdir(parents=True)
        measure_jobs(Board("pi5", device.settings(keep=False)), {"small": job}, tmp_path / "measured")
        assert (device.place / "jobs" / "another").is_dir()
        assert files_in(device.place) == {"runner.py"}
    assert files_in(tmp_path / "measured") == {"small.zip"}
    said = capfd.readouterr().err
    assert f"notice: device pi5: {device.place}/jobs: has jobs that are not finished: another." in said


@contextmanager
def held(temporary: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock of the device."""
    code = "import runner, time\nwith runner.alone('another'):\n    print('held', flush=True)\n    time.sleep(600)"
    environment = {**os.environ, "PYTHONPATH": str(RUNNER.parent), "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield holder
        holder.kill()


def test_run_waits_for_another_that_is_at_work(
    device: Sshd, job: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = ""
    with held(device.folder / "there" / "tmp") as holder:
        measuring = Measuring(Board("pi5", device.settings(latency=False)), job, tmp_path)
        while "waiting" not in said:
            assert measuring.is_alive(), measuring.error
            time.sleep(0.05)
            said += capfd.readouterr().err
        assert measuring.pieces() == {}
    measuring.join()
    assert f"another run is at work on this machine: process {holder.pid}, since " in said
    assert measuring.error is None
    assert "outputs-ncnn-fp16-00016.npz" in measuring.pieces()


def test_studies_that_measure_at_once_take_turns(job: Job, ways: dict[str, Way], tmp_path: Path) -> None:
    jobs = {"a": job, "b": make_job(tmp_path / "other", ways, people=3)}
    with sshd(tmp_path / "device") as device, ThreadPoolExecutor(2) as pool:

        def measured(study: str) -> set[str]:
            board = Board("pi5", device.settings(keep=False, latency=False))
            measure_jobs(board, {"small": jobs[study]}, tmp_path / study)
            return files_in(tmp_path / study)

        assert list(pool.map(measured, jobs)) == [{"small.zip"}] * 2
        # The last of them removed it.
        assert not device.place.exists()


def test_lock_of_a_process_that_was_killed_is_nobodys(device: Sshd, job: Job, tmp_path: Path) -> None:
    temporary = device.folder / "there" / "tmp"
    with held(temporary):
        pass
    assert (temporary / "posequant.lock").exists()
    Board("pi5", device.settings()).measure(job, tmp_path)
    assert not (temporary / "posequant.lock").exists()


def test_wrong_key(device: Sshd, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    text = (device.folder / "ssh_config").read_text().replace(str(device.folder / "user_key"), str(other))
    (tmp_path / "ssh_config").write_text(text)
    settings = device.settings(ssh_options=["-F", str(tmp_path / "ssh_config")])
    refused = message_of(Board("pi5", settings).facts)
    assert refused.startswith("device pi5: it accepts no key of yours, and no password is asked for. Copy your key")


def test_unknown_host_key(device: Sshd, tmp_path: Path) -> None:
    options = ["-o", f"UserKnownHostsFile={tmp_path / 'none'}", *device.settings().ssh_options]
    refused = message_of(Board("pi5", device.settings(ssh_options=options)).facts)
    assert refused == (
        "device pi5: its host key is not known here. Connect once by hand (ssh board), and compare the fingerprint "
        "before you accept it."
    )


def test_host_key_that_has_changed(device: Sshd, tmp_path: Path) -> None:
    known = (device.folder / "known_hosts").read_text().split()
    other = (device.folder / "user_key.pub").read_text().split()
    (tmp_path / "known").write_text(" ".join([known[0], *other[:2]]) + "\n")
    options = ["-o", f"UserKnownHostsFile={tmp_path / 'known'}", *device.settings().ssh_options]
    refused = message_of(Board("pi5", device.settings(ssh_options=options)).facts)
    assert "its host key is another than the one that is known here" in refused


def test_device_that_is_off(device: Sshd) -> None:
    options = ["-o", "Port=1", *device.settings().ssh_options]
    refused = message_of(Board("pi5", device.settings(ssh_options=options)).facts)
    assert "device pi5: board cannot be reached (ssh: connect to host 127.0.0.1 port 1: Connection refused)" in refused


def test_missing_python(job: Job, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "bash", "cat", "mkdir", "mv", "rm"):
        (programs / name).symlink_to(str(shutil.which(name)))
    with sshd(tmp_path / "device", {"PATH": str(programs)}) as device:
        refused = message_of(lambda: Board("pi5", device.settings(python=None)).measure(job, tmp_path / "pieces"))
    assert refused == (
        "device pi5: there is no python3 there. Install Python 3.8 or later, or name it by devices.pi5.python."
    )


def test_python_without_venv(job: Job, tmp_path: Path) -> None:
    (tmp_path / "venv.py").write_text("raise SystemExit('No module named ensurepip')")
    with sshd(tmp_path / "device", {"PYTHONPATH": str(tmp_path)}) as device:
        refused = message_of(lambda: Board("pi5", device.settings(python=None)).measure(job, tmp_path / "pieces"))
        assert files_in(device.place) == {"runner.py"}
    assert refused == (
        "device pi5: no virtual environment can be made. Install what is missing (Debian: apt install python3-venv), "
        "or name a Python that has numpy and ncnn. It says:\nNo module named ensurepip"
    )


def test_pip_that_finds_no_packages(job: Job, tmp_path: Path) -> None:
    environment = {"PIP_INDEX_URL": "http://127.0.0.1:1", "PIP_RETRIES": "0"}
    with sshd(tmp_path / "device", environment) as device:
        refused = message_of(lambda: Board("pi5", device.settings(python=None)).measure(job, tmp_path / "pieces"))
        assert files_in(device.place) == {"runner.py"}
    assert refused.startswith("device pi5: pip cannot install ncnn==")
    assert "No matching distribution found for ncnn==" in refused


def test_python_without_ncnn(device: Sshd, job: Job, bare: str, tmp_path: Path) -> None:
    refused = message_of(lambda: Board("pi5", device.settings(python=bare)).measure(job, tmp_path / "pieces"))
    assert refused.startswith(f"device pi5: {bare} has no ncnn and no numpy there. Install what is missing")


def test_full_disk_while_the_job_is_sent(job: Job, tmp_path: Path) -> None:
    width, height = SPEC.input_size
    write_people(tmp_path / "people.npz", np.zeros((400, height, width, 3), np.uint8))
    large = Job(job.networks, tmp_path / "people.npz")
    # No file may have more than 100 KB there: the crops have.
    with sshd(tmp_path / "device", first="ulimit -f 100") as device:
        refused = message_of(lambda: Board("pi5", device.settings()).measure(large, tmp_path / "pieces"))
        assert not [name for name in files_in(device.place) if "people" in name]
    assert "/people.npz: cannot be written: the disk, a quota or a limit of file sizes is full" in refused
    assert "Make space and run the same command again: it goes on from here." in refused


def test_full_disk_while_pieces_are_written_leaves_those_that_are_whole(job: Job, tmp_path: Path) -> None:
    # The outputs of eight people take about 100 KB.
    with sshd(tmp_path / "device", first="ulimit -f 60") as device:
        refused = message_of(lambda: Board("pi5", device.settings()).measure(job, tmp_path / "pieces"))
    assert "/outputs-ncnn-00000.npz: cannot be written: the disk, a quota or a limit" in refused
    (pieces,) = (tmp_path / "pieces").iterdir()
    assert "latency-0001.json" in files_in(pieces)
    with sshd(tmp_path / "mended") as device:
        Board("pi5", device.settings()).measure(job, tmp_path / "pieces")
    assert "outputs-ncnn-fp16-00016.npz" in files_in(pieces)


def test_folder_that_cannot_be_made(device: Sshd, job: Job, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = device.settings(folder=str(tmp_path / "file" / "posequant"))
    refused = message_of(lambda: Board("pi5", settings).measure(job, tmp_path / "pieces"))
    assert f"device pi5: {tmp_path}/file/posequant cannot be written there (mkdir: cannot create directory" in refused
    assert "devices.pi5.folder" in refused


def test_shell_that_prints_at_its_start(job: Job, tmp_path: Path) -> None:
    with sshd(tmp_path / "device", first="echo welcome") as device:
        pieces = Board("pi5", device.settings()).measure(job, tmp_path / "pieces")
    assert (pieces / "facts.json").is_file()


def test_without_the_program_ssh(device: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert message_of(Board("pi5", device.settings()).facts) == (
        "there is no program ssh here. Install OpenSSH's client."
    )


def test_requirements_pin_what_is_here() -> None:
    assert ssh._requirements({"ncnn": "1.0", "numpy": "2.4"}) == [
        'ncnn==1.0; python_version >= "3.9"',
        'ncnn; python_version < "3.9"',
        'numpy==2.4; python_version >= "3.11"',
        'numpy; python_version < "3.11"',
    ]
