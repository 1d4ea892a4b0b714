"""A study on devices: one reached over ssh, one where the runner is started by hand, and an emulated core."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.unit.evaluation_fixtures import draw_dataset
from tests.unit.pose_fixtures import SPEC, pose_network
from tests.unit.sshd_fixtures import Sshd, needs_sshd, sshd
from tests.workflow.test_workflow import ROOT, Workflow, copy_checkout

pytestmark = needs_sshd
PAGE = "results/mine/devices/{}/result.md"
OF_MODEL = "results/mine/net/devices"
PEOPLE = f"{OF_MODEL}/people-8-seed-0/people.npz"
STUDY: dict[str, Any] = {
    "dataset": {
        "train": {"images": "train/images", "annotations": "train/annotations.json"},
        "val": {"images": "val/images", "annotations": "val/annotations.json"},
    },
    "calibration": {"people": 4},
    "certificate": {"resamples": 100},
    "models": {
        "net": {
            **{"source": "ncnn", "param": "net.param", "bin": "net.bin", "codec": SPEC.codec},
            **{"input_size": list(SPEC.input_size), "mean": list(SPEC.mean), "std": list(SPEC.std)},
        }
    },
    "variants": ["ncnn", "ncnn-fp16", "ncnn-int8"],
}


class Devices(NamedTuple):
    """A working folder with a study, and the device that it names."""

    workflow: Workflow
    device: Sshd

    def configure(self, **study: Any) -> None:
        devices = {
            "pi5": {**self.device.settings(rounds=2).filled(), "people": 8},
            "phone": {"results": "phone", "people": 8},
            "a53": {"core": "cortex-a53", "people": 8},
        }
        content = {"study": "mine", "devices": devices, "studies": {"mine": STUDY | study}}
        (self.workflow.folder / "small.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    folder = tmp_path_factory.mktemp("devices")
    copy_checkout(folder)
    draw_dataset(folder / "train", seed=1, first_image=101)
    draw_dataset(folder / "val", seed=2)
    pose_network().write(folder / "net.param", folder / "net.bin")
    with sshd(tmp_path_factory.mktemp("device")) as device:
        found = Devices(Workflow(folder), device)
        found.configure()
        found.workflow.first_output = found.workflow.run(PAGE.format("pi5"))
        yield found


def test_page_says_what_rows_do_there_and_which_to_ship(devices: Devices) -> None:
    page = (devices.workflow.folder / PAGE.format("pi5")).read_text()
    assert page.startswith("# Device pi5, mine\n")
    assert page.count("**Ship ncnn") == 1
    rows = [line for line in page.splitlines() if re.match(r"\| ncnn(-fp16|-int8)? ", line)]
    assert len(rows) == 6
    assert (devices.workflow.folder / PAGE.format("pi5")).with_suffix(".html").is_file()


def test_networks_compute_there_what_they_do_here(devices: Devices) -> None:
    result = json.loads((devices.workflow.folder / "results/mine/devices/pi5/result.json").read_text())
    rows = result["models"]["net"]["rows"]
    assert {name: row["to_here"]["sqnr_db"] for name, row in rows.items()} == dict.fromkeys(STUDY["variants"])


def test_second_run_has_nothing_to_do(devices: Devices) -> None:
    assert devices.workflow.planned(PAGE.format("pi5")) == {}


def test_by_hand_it_says_what_to_do_and_takes_the_result_in(devices: Devices, tmp_path: Path) -> None:
    workflow = devices.workflow
    told = workflow.run("-n", PAGE.format("phone"), succeeds=False)
    assert "devices.phone.results: phone/net.zip: no such file." in told
    assert f"Make {OF_MODEL}/networks.zip and {PEOPLE}, copy them to the device" in told
    for name in (f"{OF_MODEL}/networks.zip", PEOPLE, "scripts/posequant/devices/runner.py"):
        shutil.copy2(workflow.folder / name, tmp_path)
    command = [sys.executable, "runner.py", "--package", "networks.zip", "--people", "people.npz", "--out", "net.zip"]
    environment = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--rounds", "1", "--cool", "0"], cwd=tmp_path, env=environment, check=True)
    (workflow.folder / "phone").mkdir()
    shutil.copy2(tmp_path / "net.zip", workflow.folder / "phone")
    workflow.run(PAGE.format("phone"))
    assert "**Ship ncnn" in (workflow.folder / PAGE.format("phone")).read_text()


@pytest.mark.skipif(not (ROOT / ".arm").is_dir(), reason="ARM is not emulated here: run `make arm`")
def test_emulated_core_is_a_device_that_is_not_timed(devices: Devices) -> None:
    (devices.workflow.folder / ".arm").symlink_to(ROOT / ".arm")
    devices.workflow.run(PAGE.format("a53"))
    result = json.loads((devices.workflow.folder / "results/mine/devices/a53/result.json").read_text())
    rows = result["models"]["net"]["rows"]
    assert list(rows) == STUDY["variants"]
    assert rows["ncnn"]["to_here"]["sqnr_db"] > 100
    assert not any(row.get("latency") for row in rows.values())
    assert "**Ship" not in (devices.workflow.folder / PAGE.format("a53")).read_text()


def test_report_of_a_study_that_names_a_device_takes_its_page_in(devices: Devices) -> None:
    devices.configure(devices=["pi5"])
    try:
        jobs = devices.workflow.planned("results/mine/report.html")
        assert jobs["render_report"] == 1
        assert "measure_device" not in jobs
        output = devices.workflow.run("-n", "-p", "results/mine/report.html")
        assert "--devices results/mine/devices/pi5/result.md" in output
    finally:
        devices.configure()


def test_device_that_is_the_target_is_asked_what_it_is(devices: Devices) -> None:
    workflow = devices.workflow
    devices.configure(target="pi5", variants=["ncnn", "ncnn-int8-tuned"])
    try:
        row = "results/mine/net/ncnn-int8-tuned"
        jobs = workflow.planned(f"{row}/model.param")
        assert (jobs["device_facts"], jobs["apply_recipe"]) == (1, 1)
        workflow.run(f"{row}/recipe.json")
        assert json.loads((workflow.folder / row / "recipe.json").read_text())["target"] == "x86"
    finally:
        devices.configure()
