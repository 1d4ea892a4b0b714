"""The runner by hand: one file that needs numpy and ncnn, and does its work in pieces."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.pose_fixtures import SPEC, pose_network

from posequant.base import timing
from posequant.devices import RUNNER, runner
from posequant.devices.exchange import Result, Way, write_networks, write_people
from posequant.devices.job import write_package

ALONE = {"numpy", "ncnn", *sys.stdlib_module_names}
PI5 = "".join(
    f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd crc32 asimdhp asimddp lrcpc\n"
    f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\n\n"
    for core in range(4)
)
# Big cores that have i8mm, and little ones that do not.
MIXED = (
    "processor\t: 0\nFeatures\t: asimd asimdhp asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\n"
    "processor\t: 1\nFeatures\t: asimd asimdhp asimddp i8mm bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd4d\n\n"
    "processor\t: 2\nFeatures\t: asimd asimdhp asimddp i8mm bf16\nCPU implementer\t: 0x61\nCPU part\t: 0x022\n"
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Way:
    folder = tmp_path_factory.mktemp("network")
    files = folder / "model.param", folder / "model.bin"
    pose_network().write(*files)
    return Way(files, "fp32")


def crops(count: int) -> Any:
    width, height = SPEC.input_size
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture
def job(tmp_path: Path, network: Way) -> Path:
    """A folder with what the runner is given."""
    write_package(tmp_path / "networks.zip", SPEC, {"ncnn": network, "ncnn-fp16": Way(network.files, "fp16")})
    write_people(tmp_path / "people.npz", crops(20))
    return tmp_path


@contextmanager
def started(folder: Path, *options: str, package: str = "networks.zip") -> Iterator[subprocess.Popen[str]]:
    """The runner, which is killed in the end if it is still at work."""
    command = [sys.executable, "-I", str(RUNNER), "--package", package, "--people", "people.npz", "--out", "result.zip"]
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--cool", "0", *options], cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a file is there; fail where the process ends before."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)


def run(folder: Path, *options: str, package: str = "networks.zip", succeeds: bool = True) -> str:
    with started(folder, *options, package=package) as process:
        output, _ = process.communicate()
    assert (process.returncode == 0) == succeeds, output
    return output


def test_it_imports_nothing_but_numpy_and_ncnn() -> None:
    nodes = list(ast.walk(ast.parse(RUNNER.read_text(), feature_version=(3, 8))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= ALONE


def test_networks_take_turns_as_here() -> None:
    for count in (1, 2, 5, 6):
        for number in range(2 * count):
            assert runner.order_of_round(number, count) == timing.order_of_round(number, count)


def test_cores_are_named_by_their_parts() -> None:
    assert runner.core_names(PI5) == ["Cortex-A76"] * 4
    assert runner.core_names(MIXED) == ["Cortex-A55", "Cortex-A715", "implementer 0x61 part 0x022"]


def test_features_are_those_that_all_cores_have() -> None:
    assert runner.features(PI5) == ["NEON", "FP16", "dotprod"]
    assert runner.features(MIXED) == ["NEON", "FP16", "dotprod"]


@pytest.mark.parametrize(
    ("machine", "largest", "told"),
    [("aarch64", 2**63 - 1, True), ("aarch64", 2**31 - 1, False), ("armv7l", 2**31 - 1, False),
     ("x86_64", 2**63 - 1, False)],
)  # fmt: skip
def test_bits_of_features_are_read_by_programs_of_64_bits_alone(machine: str, largest: int, told: bool) -> None:
    assert runner.tells_features(machine, largest) == told


def test_big_and_little_cores_are_timed_each_and_together() -> None:
    names = [setting.name for setting in runner.settings_for(8, big=4, little=4)]
    assert names == ["1 thread, big core", "1 thread, little core", "4 threads, big cores", "8 threads"]
    assert [setting.name for setting in runner.settings_for(4, big=4, little=0)] == ["1 thread", "4 threads"]
    assert [setting.name for setting in runner.settings_for(1, big=1, little=0)] == ["1 thread"]


@pytest.mark.parametrize(
    ("celsius", "permitted", "settled"),
    [(50, 9600, True), (55, 9600, True), (56, 9600, False), (50, 6000, False), (None, None, True)],
)
def test_next_round_waits_for_temperature_and_frequency(celsius: Any, permitted: Any, settled: bool) -> None:
    first = {"celsius": 50, "mhz": 2400, "permitted_mhz": 9600 if permitted else None}
    assert runner.settled({"celsius": celsius, "mhz": 600, "permitted_mhz": permitted}, first) == settled


def test_result_has_every_piece_and_no_more_is_left(job: Path) -> None:
    run(job, "--rounds", "7")
    with zipfile.ZipFile(job / "result.zip") as archive:
        names = archive.namelist()
    rows = ("ncnn", "ncnn-fp16")
    outputs = [f"outputs-{row}-{start:05d}.npz" for row in rows for start in (0, 8, 16)]
    loads = [f"load-{row}.json" for row in rows]
    assert names == ["job.json", "facts.json", *loads, "latency-0000.json", "latency-0001.json", *outputs]
    assert {path.name for path in job.iterdir()} == {"networks.zip", "people.npz", "result.zip"}


def test_values_of_every_blob_are_given_on_request(job: Path, network: Way) -> None:
    run(job, "--no-latency", "--layers", "1", "--rows", "ncnn")
    layers = Result(job / "result.zip").layers("ncnn", 0)
    (outputs,) = Result(job / "result.zip").outputs("ncnn", network.network(SPEC))
    assert set(layers) == {"in0", "a", "b", "c", "out0"}
    np.testing.assert_array_equal(layers["out0"], outputs[0])


def test_one_that_was_killed_goes_on_where_it_ended(job: Path) -> None:
    write_people(job / "people.npz", crops(400))
    pieces = job / "result.zip.pieces"
    with started(job, "--no-latency") as process:
        wait_for(pieces / "outputs-ncnn-00008.npz", process)
        process.send_signal(signal.SIGKILL)
    before = {path.name: path.stat().st_mtime_ns for path in pieces.glob("[a-z]*")}
    last = "outputs-ncnn-fp16-00392.npz"
    assert last not in before
    made = run(job, "--no-latency").split()
    assert last in made
    assert not before.keys() & set(made)


def test_pieces_of_another_job_are_refused(job: Path) -> None:
    (job / "result.zip.pieces").mkdir()
    (job / "result.zip.pieces" / "job.json").write_text("{}")
    output = run(job, succeeds=False)
    assert "error: result.zip.pieces: holds pieces of another job. Remove the folder, or give another --out." in output


def test_damaged_package_is_refused(job: Path) -> None:
    content = bytearray((job / "networks.zip").read_bytes())
    (job / "networks.zip").write_bytes(content[:-300])
    assert "error: networks.zip: not a package, or damaged" in run(job, succeeds=False)


def test_network_that_was_changed_is_refused(job: Path, network: Way) -> None:
    write_networks(job / "networks", SPEC, {"ncnn": network})
    (file,) = (job / "networks").glob("*.bin")
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    output = run(job, package="networks", succeeds=False)
    assert f"error: networks: {file.name} in it is missing or damaged. Copy it again." in output


def test_crops_of_another_size_are_refused(job: Path) -> None:
    write_people(job / "people.npz", np.zeros((2, 8, 8, 3), np.uint8))
    assert "but the networks take crops of 12 x 16." in run(job, succeeds=False)


def test_network_that_does_not_run_there_is_said_and_the_others_run(job: Path, network: Way) -> None:
    broken = pose_network()
    files = job / "broken.param", job / "broken.bin"
    broken.write(*files)
    files[0].write_text(files[0].read_text().replace("ConvolutionDepthWise", "NoSuchLayerExists000"))
    write_networks(job / "networks", SPEC, {"broken": Way(files, "fp32"), "ncnn": network})
    run(job, "--no-latency", package="networks")
    result = Result(job / "result.zip")
    assert "ncnn cannot load it" in result.json("load-broken.json")["failed"]
    assert result.names("outputs-broken.*") == []
    assert len(result.outputs("ncnn", network.network(SPEC))[0]) == 20


def test_second_run_that_measures_time_is_refused(job: Path) -> None:
    with started(job, "--rounds", "100000", "--seconds", "600") as first:
        wait_for(job / "posequant.lock", first)
        with started(job, "--rounds", "1") as second:
            output, _ = second.communicate()
    assert second.returncode == runner.BUSY
    assert f"error: another run is at work on this machine: process {first.pid}, since " in output


def test_another_run_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with runner.alone("one"), pytest.raises(SystemExit) as caught, runner.alone("other", wait=0.1):
        pass
    assert caught.value.code == runner.BUSY
    waited, ended = capfd.readouterr().err.splitlines()
    assert waited.endswith(", job one; waiting for it")
    assert ended.endswith(", job one. Wait for it, or end it.")


def test_lock_is_everybodys_and_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lock = tmp_path / "posequant.lock"
    before = os.umask(0o077)
    try:
        with runner.alone("one"):
            assert lock.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)
    (tmp_path / "file").write_text("another's")
    lock.symlink_to("file")
    with pytest.raises(runner.RunError, match="cannot be opened"), runner.alone("one"):
        pass
    assert (tmp_path / "file").read_text() == "another's"


def test_package_of_a_row_is_taken(job: Path, network: Way) -> None:
    """What the package of the networks has is put as `ship` puts it."""
    write_networks(job / "row", SPEC, {"ncnn": network})
    described = json.loads((job / "row" / "networks.json").read_text())
    content = {
        "schema": "posequant-package/1",
        "variant": "ncnn",
        "runtime": {"name": "ncnn", **described["rows"]["ncnn"]},
        "input": described["input"],
        "sha256": described["sha256"],
    }
    (job / "row" / "networks.json").unlink()
    (job / "row" / "model.json").write_text(json.dumps(content))
    run(job, "--no-latency", package="row")
    assert len(Result(job / "result.zip").outputs("ncnn", network.network(SPEC))[0]) == 20


def test_networks_too_large_for_the_memory_are_loaded_in_turn(
    job: Path, network: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    class Counted(runner.Network):
        def __init__(self, row: runner.Row, threads: int = 1) -> None:
            loaded.append(row.name)
            super().__init__(row, threads)

    monkeypatch.setattr(runner, "Network", Counted)
    monkeypatch.setattr(runner, "memory", lambda key: 0)
    command = ["runner.py", "--package", str(job / "networks.zip"), "--people", str(job / "people.npz")]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(job / "result.zip"), "--rounds", "1", "--threads", "1"])
    monkeypatch.setattr("tempfile.tempdir", str(job))
    runner.by_hand(runner.parse_arguments())
    # Each for two rounds of warm-up and one that is timed, and for its outputs; once more in a process of its own.
    assert sorted(loaded) == ["ncnn"] * 4 + ["ncnn-fp16"] * 4


def test_network_for_vulkan_is_refused_where_there_is_none(
    job: Path, network: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The loader of Vulkan finds no driver.
    for variable in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.setenv(variable, str(job / "none.json"))
    write_networks(job / "networks", SPEC, {"ncnn-vulkan": network, "ncnn": network})
    path = job / "networks" / "networks.json"
    described = json.loads(path.read_text())
    described["rows"]["ncnn-vulkan"]["options"]["use_vulkan_compute"] = True
    path.write_text(json.dumps(described))
    run(job, "--no-latency", package="networks")
    result = Result(job / "result.zip")
    assert "ncnn finds no Vulkan device here" in result.json("load-ncnn-vulkan.json")["failed"]
    assert result.names("outputs-ncnn-vulkan.*") == []
    assert len(result.names("outputs-ncnn-.*")) == 3


def test_another_system_than_linux_is_refused() -> None:
    code = "import platform, runner; platform.system = lambda: 'Darwin'; runner.main()"
    told = subprocess.run(
        [sys.executable, "-c", code, "--facts"], cwd=RUNNER.parent, capture_output=True, text=True, check=False
    )
    assert told.stderr == "error: this runner needs Linux, and this is Darwin.\n"


def test_facts_are_told_without_a_job() -> None:
    told = subprocess.run([sys.executable, "-I", "-S", str(RUNNER), "--facts"], capture_output=True, check=True)
    facts = json.loads(told.stdout)
    assert facts["versions"] == {}
    assert facts["cores"]


def test_only_an_environment_of_ours_is_removed_whole_or_not(tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    for mark in ("null", '{"packages": []}'):
        (folder / "lib").mkdir(parents=True)
        (folder / "lib64").symlink_to("lib")
        (folder / runner.MADE).write_text(mark)
        runner.remove_environment(folder)
        assert not folder.exists()
    runner.remove_environment(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / runner.MADE).write_text("null")
    folder.symlink_to("mine")
    with pytest.raises(runner.RunError, match="is not PoseQuant's"):
        runner.remove_environment(folder)
    assert (tmp_path / "mine" / runner.MADE).exists()
