"""Rows on Vulkan: what a run plans for them, what it says without a device, and what they score."""

from pathlib import Path

import pytest
from tests.vulkan import NO_DEVICE, needs_vulkan
from tests.workflow.test_workflow import MODEL, Workflow, copy_checkout

from posequant.base.files import read_json

ROWS = ["ncnn-vulkan", "ncnn-vulkan-fp16", "ncnn-vulkan-int8"]


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder = tmp_path_factory.mktemp("vulkan")
    copy_checkout(folder)
    made = Workflow(folder)
    images = {"train_images": 12, "val_images": 12}
    made.configure(dataset={"synthetic": images}, calibration={"people": 8}, attribution=[], variants=ROWS)
    return made


def test_rows_run_the_files_of_the_cpu(workflow: Workflow) -> None:
    jobs = workflow.planned("results/result.md")
    assert (jobs["convert_ncnn"], jobs["ncnn2table"], jobs["ncnn2int8"]) == (2, 1, 1)
    assert (jobs["predict"], jobs["certify"], jobs["latency"]) == (3, 2, 1)


def test_a_machine_without_a_device_ends_the_run_before_any_job(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in NO_DEVICE.items():
        monkeypatch.setenv(name, value)
    output = workflow.run("results/result.md", succeeds=False)
    assert "ncnn-vulkan, ncnn-vulkan-fp16, ncnn-vulkan-int8: there is no Vulkan device. Install the driver" in output
    assert "apt-get install mesa-vulkan-drivers libvulkan1" in output
    assert not list((workflow.folder / "results").rglob("*.log"))


@needs_vulkan
def test_a_device_that_is_not_there_ends_the_run_before_any_job(workflow: Workflow) -> None:
    output = workflow.run("results/result.md", "--config", "vulkan_device=nothing", succeeds=False)
    assert "there is no Vulkan device 'nothing'. There are 0: " in output
    assert not list((workflow.folder / "results").rglob("*.log"))


@needs_vulkan
def test_fp32_scores_what_it_does_on_the_cpu(workflow: Workflow) -> None:
    rows = [f"{MODEL}/{row}/metrics.json" for row in ("ncnn", "ncnn-vulkan")]
    workflow.run(*rows, "--config", "vulkan_device=0")
    on_cpu, on_vulkan = (read_json(Path(workflow.folder, row)) for row in rows)
    assert on_vulkan["statistics"]["AP"] == pytest.approx(on_cpu["statistics"]["AP"], abs=0.001)
    assert "device" not in on_cpu
    assert on_vulkan["device"]["on_cpu"] == []
