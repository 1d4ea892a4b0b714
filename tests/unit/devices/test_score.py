"""What a device gave back is scored here: as the same networks on the same people."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.evaluation_fixtures import Dataset, draw_dataset
from tests.unit.pose_fixtures import SPEC, pose_network

from posequant.base.errors import InputError
from posequant.data.crops import Cropper, crops_of_images
from posequant.data.dataset import evaluation_instances
from posequant.devices import RUNNER
from posequant.devices.exchange import Way
from posequant.devices.job import write_crops, write_package
from posequant.devices.page import render
from posequant.devices.score import Ground, Measured, ScoredModel, device_result
from posequant.evaluate.predict import predict_poses
from posequant.workflow.settings.certify import Sampling
from posequant.workflow.settings.report import Tolerance


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Measured:
    folder = tmp_path_factory.mktemp("measured")
    SPEC.save(folder / "model.json")
    files = folder / "model.param", folder / "model.bin"
    pose_network().write(*files)
    ways = {"ncnn": Way(files, "fp32"), "ncnn-fp16": Way(files, "fp16")}
    write_package(folder / "networks.zip", SPEC, ways)
    write_crops(folder / "people.npz", folder / "model.json", dataset.annotations, dataset.images, None)
    subprocess.run(
        [sys.executable, str(RUNNER), "--package", "networks.zip", "--people", "people.npz", "--out", "small.zip",
         "--rounds", "2", "--cool", "0", "--threads", "1"],
        cwd=folder, env={"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}, check=True,
    )  # fmt: skip
    return Measured(folder / "model.json", folder / "people.npz", folder / "small.zip", ways)


@pytest.fixture(scope="module")
def ground(dataset: Dataset) -> Ground:
    return Ground(dataset.annotations, None, Sampling(resamples=100), Tolerance())


@pytest.fixture(scope="module")
def result(measured: Measured, ground: Ground) -> dict[str, Any]:
    return device_result("pi5", [measured], ground)


def test_device_that_computes_as_here_gives_the_same_poses(result: dict[str, Any]) -> None:
    rows = result["models"]["small"]["rows"]
    assert list(rows) == ["ncnn", "ncnn-fp16"]
    for row in rows.values():
        assert row["to_here"] == {"oks": pytest.approx(1.0), "sqnr_db": None}
    assert rows["ncnn-fp16"]["to_fp32"]["oks"]["value"] == pytest.approx(1.0)


def test_poses_are_decoded_as_of_networks_here(measured: Measured, dataset: Dataset, ground: Ground) -> None:
    there = ScoredModel(measured, ground).predictions_there("ncnn")
    instances = evaluation_instances(dataset.annotations, None, SPEC.keypoints)
    here = predict_poses(
        measured.ways["ncnn"].network(SPEC),
        SPEC,
        instances,
        crops_of_images(Cropper(SPEC), instances, dataset.images),
        flip_test=False,
        threads=1,
        show_progress=False,
    )
    assert (there.poses.keypoints == here.keypoints).all()


def test_times_are_medians_beside_those_of_fp32(result: dict[str, Any]) -> None:
    model = result["models"]["small"]
    assert model["timing"]["rounds"] == 2
    times = {name: row["latency"]["1 thread"] for name, row in model["rows"].items()}
    assert times["ncnn"]["against_fp32"] == 1.0
    assert times["ncnn-fp16"]["median_ms"] <= times["ncnn-fp16"]["p95_ms"]


def test_page_has_the_device_the_table_and_one_sentence(result: dict[str, Any]) -> None:
    page = render(result, "demo")
    assert page.startswith("# Device pi5, demo\n")
    assert "| Features |" in page
    assert page.count("**Ship ncnn") == 1
    assert "| ncnn-fp16 |" in page


def test_result_of_other_people_is_refused(measured: Measured, ground: Ground, tmp_path: Path) -> None:
    people = tmp_path / "people.npz"
    people.write_bytes(measured.people.read_bytes() + b" ")
    with pytest.raises(InputError, match="is of other people than"):
        device_result("pi5", [replace(measured, people=people)], ground)


def test_result_of_other_networks_is_refused(measured: Measured, ground: Ground, tmp_path: Path) -> None:
    files = tmp_path / "model.param", tmp_path / "model.bin"
    network = pose_network()
    network.weights[-1]["weight"] *= 2
    network.write(*files)
    ways = {"ncnn": Way(files, "fp32")}
    with pytest.raises(InputError, match="ncnn in it is of other networks than small has now"):
        device_result("pi5", [replace(measured, ways=ways)], ground)


def test_result_whose_rows_are_swapped_is_refused(measured: Measured, ground: Ground, tmp_path: Path) -> None:
    files = tmp_path / "model.param", tmp_path / "model.bin"
    network = pose_network()
    network.weights[-1]["weight"] *= 2
    network.write(*files)
    ways = {"a": measured.ways["ncnn"], "b": Way(files, "fp32")}
    write_package(tmp_path / "networks.zip", SPEC, {"a": ways["b"], "b": ways["a"]})
    result = tmp_path / "small.zip"
    command = [sys.executable, str(RUNNER), "--package", str(tmp_path / "networks.zip"), "--no-latency"]
    subprocess.run([*command, "--people", str(measured.people), "--out", str(result)], check=True)
    with pytest.raises(InputError, match="a in it is of other networks than small has now"):
        device_result("pi5", [replace(measured, result=result, ways=ways)], ground)


def test_result_of_other_options_is_refused(measured: Measured, ground: Ground) -> None:
    ways = {**measured.ways, "ncnn-fp16": replace(measured.ways["ncnn-fp16"], packing=False)}
    with pytest.raises(InputError, match="ncnn-fp16 in it is of other networks than small has now, or was run with"):
        device_result("pi5", [replace(measured, ways=ways)], ground)


def test_file_that_is_no_result_is_refused(measured: Measured, ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "result.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match="not the result of a run, or damaged"):
        device_result("pi5", [replace(measured, result=tmp_path / "result.zip")], ground)
