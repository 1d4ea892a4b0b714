"""Packages of small networks: what is in them, whether their programs give what the workflow predicts."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from tests.unit.evaluation_fixtures import Dataset, draw_dataset, export_onnx, make_model
from tests.unit.ncnn_fixtures import draw_crops, write_crops
from tests.unit.pose_fixtures import SPEC, pose_network
from tests.unit.ship.ncnn_library import ncnn_library
from tests.vulkan import NO_DEVICE, needs_vulkan

from posequant.base.errors import InputError
from posequant.base.files import read_json, sha256, write_json
from posequant.base.model_spec import ModelSpec
from posequant.evaluate.keypoint_metrics import evaluate_predictions
from posequant.evaluate.predict import make_predictions
from posequant.evaluate.predictions import Predictions
from posequant.quantize.ncnn2int8 import quantize_files
from posequant.quantize.ncnn2table import write_table
from posequant.ship.package import Row, write_package
from posequant.ship.words import certified

ROOT = Path(__file__).parents[3]
# A codec each of ONNX Runtime, whose files are the quickest to make, and the other runtimes.
ROWS = (
    "onnxruntime-msra",
    "onnxruntime-dark",
    "onnxruntime-udp",
    "onnxruntime-megvii",
    "openvino-msra",
    "ncnn",
    "ncnn-int8",
    pytest.param("ncnn-vulkan", marks=needs_vulkan),
)


@dataclass(frozen=True)
class Packed:
    """A row, its predictions, and its package, unpacked."""

    row: Row
    spec: ModelSpec
    dataset: Dataset
    predictions: Predictions
    archive: Path
    folder: Path

    def describes(self) -> Any:
        return read_json(self.folder / "model.json")


def pack(row: Row, out: Path) -> Path:
    write_package(row, out, license_file=ROOT / "LICENSE", network_license="CC0-1.0")
    return out


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def packed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Packed]:
    """Returns a row and its package, made once, by its name in `ROWS`."""
    made: dict[str, Packed] = {}

    def of(name: str) -> Packed:
        if name not in made:
            made[name] = make_row(name, dataset, tmp_path_factory.mktemp(name))
        return made[name]

    return of


def make_row(name: str, dataset: Dataset, folder: Path) -> Packed:
    backend, _, codec = name.partition("-")
    precision, table = "fp32", None
    if backend == "ncnn":
        # The network is as large as its heatmaps: a keypoint off by a quarter of a pixel is off in the image, too.
        spec = replace(SPEC, mean=(123.675, 116.28, 103.53), std=(58, 57, 57.375))
        files = [folder / "float.param", folder / "float.bin"]
        pose_network().write(*files)
        if codec == "vulkan":
            backend = name
        if codec == "int8":
            precision, table, (param, weights) = "int8", folder / "model.table", files
            write_crops(folder / "crops", draw_crops(4))
            write_table(table, param, weights, folder / "crops", "kl")
            files = [folder / "int8.param", folder / "int8.bin"]
            quantize_files(param, weights, table, files[0], files[1])
    else:
        model = make_model(folder, codec)
        spec, files = model.spec, [export_onnx(model, folder / "model.onnx")]
        if backend == "openvino":
            ov.save_model(ov.convert_model(files[0]), folder / "net.xml", compress_to_fp16=False)
            files = [folder / "net.xml", folder / "net.bin"]
    spec.save(folder / "model.json")
    predictions = make_predictions(
        model=folder / "model.json",
        variant=name,
        backend=backend,
        precision=precision,
        artifacts=files,
        images=dataset.images,
        annotations=dataset.annotations,
        detections=None,
        flip_test=False,
        threads=1,
    )
    predictions.save(folder / "predictions.npz")
    metrics, _ = evaluate_predictions(folder / "predictions.npz", dataset.annotations)
    write_json(folder / "metrics.json", metrics)
    row = Row(model=folder / "model.json", artifacts=files, metrics=folder / "metrics.json", table=table)
    archive = pack(row, folder / "package.zip")
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder / "package")
    return Packed(row, spec, dataset, predictions, archive, folder / "package")


def program(folder: Path) -> ModuleType:
    """The package's pose.py, as an app imports it."""
    found = importlib.util.spec_from_file_location("pose", folder / "pose.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def run(
    folder: Path, *arguments: str, python: str = sys.executable, elsewhere: Path
) -> "subprocess.CompletedProcess[str]":
    """Run the package's pose.py where nothing of PoseQuant can be imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [python, "-B", "-s", str(folder / "pose.py"), *arguments]
    return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)


def picture(path: Path) -> NDArray[np.uint8]:
    pixels = cv2.imread(str(path))
    assert pixels is not None, path
    return np.asarray(pixels, np.uint8)


@pytest.mark.parametrize("name", ROWS)
def test_pose_py_finds_what_the_workflow_predicts(packed: Callable[[str], Packed], name: str) -> None:
    row = packed(name)
    files = {image["id"]: image["file_name"] for image in json.loads(row.dataset.annotations.read_text())["images"]}
    network = program(row.folder).Network()
    poses, found = row.predictions.poses, []
    for image, (left, top, right, bottom) in zip(
        row.predictions.image_ids, row.predictions.bboxes.astype(float), strict=True
    ):
        pixels = picture(row.dataset.images / files[image])
        found.append(network.pose(pixels, (left, top, right - left, bottom - top)))
    keypoints = np.stack(found)
    np.testing.assert_allclose(keypoints[..., :2], poses.keypoints, atol=2e-3)
    np.testing.assert_allclose(keypoints[..., 2], poses.keypoint_scores, atol=1e-4)


@pytest.mark.parametrize("name", ROWS)
def test_self_test_passes_without_posequant(packed: Callable[[str], Packed], name: str, tmp_path: Path) -> None:
    done = run(packed(name).folder, "--self-test", elsewhere=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "self-test passed" in done.stdout
    assert not re.search(r"^\s*(?:from|import) posequant", (packed(name).folder / "pose.py").read_text(), re.MULTILINE)


@needs_vulkan
def test_package_for_vulkan_stops_where_there_is_no_device(
    packed: Callable[[str], Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to itself, ncnn computes on the CPU."""
    row = packed("ncnn-vulkan")
    assert row.describes()["runtime"]["options"]["use_vulkan_compute"] is True
    assert "#error" in (row.folder / "pose.cpp").read_text()
    for name, value in NO_DEVICE.items():
        monkeypatch.setenv(name, value)
    done = run(row.folder, "--self-test", elsewhere=tmp_path)
    assert done.returncode == 1
    assert "ncnn finds no Vulkan device: install the driver of the GPU" in done.stderr


@pytest.mark.parametrize("name", ["onnxruntime-msra", "openvino-msra", "ncnn-int8"])
def test_self_test_fails_where_the_network_was_changed(
    packed: Callable[[str], Packed], name: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(packed(name).folder, tmp_path / "package"))
    weights = folder / packed(name).describes()["runtime"]["files"][-1]
    weights = weights.with_suffix(".bin") if weights.suffix == ".xml" else weights
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    done = run(folder, "--self-test", elsewhere=tmp_path)
    assert done.returncode == 1
    assert f"self-test failed: {weights.name} is not as it was packed" in done.stderr


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        (("[..., ::-1] - np", " - np"), "network"),  # red for blue
        (('* MODEL["crop"]["padding"]', "* 1.2"), "crop"),
        (("point[0] +=", "point[0] -="), "decoding"),
    ],
)
def test_self_test_fails_where_a_step_is_wrong(
    packed: Callable[[str], Packed], change: tuple[str, str], fails: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(packed("onnxruntime-msra").folder, tmp_path / "package"))
    text = (folder / "pose.py").read_text()
    assert change[0] in text
    (folder / "pose.py").write_text(text.replace(*change))
    done = run(folder, "--self-test", elsewhere=tmp_path)
    assert done.returncode == 1, f"{fails}: {done.stdout}"
    assert "self-test failed" in done.stderr


def test_a_picture_is_drawn_of_the_person_in_a_box(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    row = packed("ncnn")
    image, (left, top, width, height) = row.folder / "golden/image.png", row.describes()["golden"]["box"]
    box = ("--box", *(str(side) for side in (left, top, width, height)))
    done = run(row.folder, str(image), *box, "--out", "drawn.png", elsewhere=tmp_path)
    assert done.returncode == 0, done.stderr
    keypoints = json.loads(done.stdout)
    expected = np.load(row.folder / "golden/keypoints.npy")
    assert list(keypoints) == row.describes()["keypoints"]
    np.testing.assert_allclose(list(keypoints.values()), expected, atol=6e-3)
    assert picture(tmp_path / "drawn.png").shape == picture(image).shape
    assert not np.array_equal(picture(tmp_path / "drawn.png"), picture(image))


def test_without_a_box_all_of_the_image_is_taken(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    folder = packed("ncnn").folder
    image = picture(folder / "golden/image.png")
    done = run(folder, str(folder / "golden/image.png"), elsewhere=tmp_path)
    expected = program(folder).Network().pose(image, (0, 0, image.shape[1], image.shape[0]))
    np.testing.assert_allclose(list(json.loads(done.stdout).values()), expected, atol=6e-3)
    assert (tmp_path / "picture.png").exists()


def test_what_is_no_image_is_refused(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    for arguments in (["nowhere.png"], []):
        done = run(packed("ncnn").folder, *arguments, elsewhere=tmp_path)
        assert done.returncode == 2
        assert "give an image that OpenCV reads" in done.stderr


@pytest.mark.parametrize("name", ROWS)
def test_pose_py_is_short_and_in_good_style(packed: Callable[[str], Packed], name: str) -> None:
    source = packed(name).folder / "pose.py"
    lines = len(source.read_text().splitlines())
    assert lines < (80 if "msra" in name or name in ("ncnn", "ncnn-int8") else 90)
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for command in (["check", "--ignore", "D1", "--ignore", "I001"], ["format", "--check"]):
        done = subprocess.run([*ruff, *command, *options, str(source)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_same_row_gives_the_same_bytes(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    row = packed("ncnn-int8")
    assert sha256(pack(row.row, tmp_path / "again.zip")) == sha256(row.archive)


def test_package_holds_and_names_what_it_should(packed: Callable[[str], Packed]) -> None:
    row = packed("ncnn-int8")
    with zipfile.ZipFile(row.archive) as archive:
        names = set(archive.namelist())
    golden = {f"golden/{name}" for name in ("image.png", "image.ppm", "crop.png", "crop.ppm", "heatmaps.npy")}
    assert names == golden | {
        "golden/keypoints.npy", "model.param", "model.bin", "model.table", "model.json", "pose.py", "self_test.py",
        "pose.cpp", "CMakeLists.txt", "README.md", "requirements.txt", "LICENSE",
    }  # fmt: skip
    described = row.describes()
    assert described["schema"] == "posequant-package/1"
    assert described["certificate"] is None
    assert described["license"] == "CC0-1.0"
    assert described["input"]["size"] == list(row.spec.input_size)
    assert described["codec"] == asdict(row.spec)["codec"]
    assert described["sha256"].keys() == golden | {
        "golden/keypoints.npy", "model.param", "model.bin", "model.table"
    }  # fmt: skip
    requirements = (row.folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in requirements] == ["ncnn", "numpy", "opencv-python-headless"]
    page = (row.folder / "README.md").read_text()
    named = re.search(r"## The files\n\n(.*?)\n\n", page, re.DOTALL)
    assert named is not None
    assert set(re.findall(r"^- `(.*?)`", named[1], re.MULTILINE)) == names - {"README.md"}
    assert "CC0-1.0" in page
    assert not re.search(r"\{[{%]|[%}]\}", page)


def test_cpp_is_left_out_where_it_does_not_fit(packed: Callable[[str], Packed]) -> None:
    for name in ("onnxruntime-msra", "openvino-msra"):
        assert not (packed(name).folder / "pose.cpp").exists()
        assert "C++" not in (packed(name).folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("codec", "named"),
    [
        ({"type": "SimCCLabel", "sigma": 6.0}, "SimCCLabel"),
        ({"type": "UDPHeatmap", "heatmap_size": [12, 16], "heatmap_type": "combined"}, "UDPHeatmap with heatmap_type"),
    ],
)
def test_codec_that_no_program_reads_is_refused(
    packed: Callable[[str], Packed], codec: dict[str, Any], named: str, tmp_path: Path
) -> None:
    row = packed("ncnn").row
    replace(packed("ncnn").spec, codec={"input_size": [12, 16], **codec}).save(tmp_path / "model.json")
    metrics = read_json(row.metrics)
    metrics["sha256"]["model"] = sha256(tmp_path / "model.json")
    write_json(tmp_path / "metrics.json", metrics)
    other = replace(row, model=tmp_path / "model.json", metrics=tmp_path / "metrics.json")
    with pytest.raises(InputError, match=f"model small: no package can be made: pose.py does not read .* {named}"):
        pack(other, tmp_path / "package.zip")
    assert not (tmp_path / "package.zip").exists()


def test_row_of_pytorch_is_refused(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    row = packed("ncnn").row
    write_json(tmp_path / "metrics.json", read_json(row.metrics) | {"backend": "pytorch"})
    with pytest.raises(InputError, match="no package is made of a network in pytorch"):
        pack(replace(row, metrics=tmp_path / "metrics.json"), tmp_path / "package.zip")


def test_files_of_another_network_are_refused(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    row, other = packed("ncnn").row, packed("ncnn-int8").row
    with pytest.raises(InputError, match=r"metrics\.json: measured with other files of the network than int8\.param"):
        pack(replace(row, artifacts=other.artifacts), tmp_path / "package.zip")
    with pytest.raises(InputError, match=r"measured with another model description than .*model\.json"):
        pack(replace(row, model=packed("onnxruntime-msra").row.model), tmp_path / "package.zip")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime-msra", "openvino-msra", "ncnn-int8"])
def test_self_test_passes_with_the_required_packages_alone(
    packed: Callable[[str], Packed], name: str, tmp_path: Path
) -> None:
    folder = packed(name).folder
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "-r", str(folder / "requirements.txt")]
    subprocess.run(install, check=True, cwd=tmp_path)
    done = run(folder, "--self-test", python=python, elsewhere=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ncnn", "ncnn-int8"])
def test_cpp_passes_its_self_test_and_finds_the_same_keypoints(
    packed: Callable[[str], Packed], name: str, tmp_path: Path
) -> None:
    row, library = packed(name), ncnn_library()
    folder = Path(shutil.copytree(row.folder, tmp_path / "package"))
    for command in (
        ["cmake", "-S", str(folder), "-B", str(tmp_path / "build"), f"-Dncnn_DIR={library}"],
        ["cmake", "--build", str(tmp_path / "build")],
        ["ctest", "--test-dir", str(tmp_path / "build"), "--output-on-failure"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def pose(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(tmp_path / "build/pose"), str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    box = [str(side) for side in row.describes()["golden"]["box"]]
    done = pose(str(folder / "golden/image.ppm"), *box, str(tmp_path / "drawn.ppm"))
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == row.describes()["keypoints"]
    assert not np.array_equal(picture(tmp_path / "drawn.ppm"), picture(folder / "golden/image.png"))
    # Its crop is interpolated in other steps; random weights have no clear maxima.
    expected = np.load(folder / "golden/keypoints.npy")[:, :2]
    near = np.abs(np.array([line[1:3] for line in lines], float) - expected).max(axis=1) < 10
    assert near.mean() > 0.7

    weights = bytearray((folder / "model.bin").read_bytes())
    weights[len(weights) // 3 : len(weights) // 2] = bytes(len(weights) // 2 - len(weights) // 3)
    (folder / "model.bin").write_bytes(weights)
    assert pose("--self-test").returncode == 1


def test_what_is_not_known_is_not_said() -> None:
    certificate: dict[str, Any] = {
        "precision": "int8",
        "bootstrap": {"confidence": 0.95},
        "share_of_fp32": None,
        "statistics": {"AP": {"difference": None, "interval": None}},
        "without_labels": {"oks": None},
    }
    assert certified(certificate) == "What it keeps of FP32 is not known."
    near = {"value": 0.98, "interval": [0.97, 0.99]}
    said = certified(certificate | {"without_labels": {"oks": near}})
    assert (
        said == "Its poses have a mean OKS of 0.9800 [0.9700, 0.9900] to those in FP32. In brackets, the 95% interval."
    )
