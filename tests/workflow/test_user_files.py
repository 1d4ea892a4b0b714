"""A study of the user's own files, run from a checkout elsewhere: what is missing, changed or interrupted."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.unit.evaluation_fixtures import draw_dataset
from tests.workflow.test_workflow import ROOT, Workflow, copy_checkout

RESULT = "results/mine/result.md"
DEMO = yaml.safe_load((ROOT / "config.yaml").read_text())["studies"]["demo"]["models"]["hourglass_demo"]
STUDY: dict[str, Any] = {
    "dataset": {
        "train": {"images": "my train/images", "annotations": "my train/annotations.json"},
        "val": {"images": "my val/images", "annotations": "my val/annotations.json"},
        "detections": "my val/detections.json",
    },
    "protocol": {"boxes": "detections"},
    "calibration": {"people": 4},
    "models": {"net": {"source": "mmpose", "config": "my net/config.py", "checkpoint": "my net/checkpoint.pth"}},
    "variants": ["ncnn", "ncnn-int8"],
}


class OwnStudy(Workflow):
    """A working folder with the study `mine`, beside the checkout that it is run from."""

    def configure(self, **study: Any) -> None:
        (self.folder / "small.yaml").write_text(yaml.safe_dump({"study": "mine", "studies": {"mine": study}}))

    def run(self, *arguments: str, **options: bool) -> str:
        place = ("-s", str(self.folder.parent / "the checkout/Snakefile"), "-d", str(self.folder))
        return super().run(*place, *arguments, **options)


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> OwnStudy:
    base = tmp_path_factory.mktemp("user files")
    checkout, folder = base / "the checkout", base / "my work"
    copy_checkout(checkout)
    draw_dataset(folder / "my train", seed=1, first_image=101)
    draw_dataset(folder / "my val", seed=2)
    (folder / "my net").mkdir()
    for file in ("config", "checkpoint"):
        shutil.copy2(ROOT / DEMO[file], folder / "my net")
    study = OwnStudy(folder)
    study.configure(**STUDY)
    before = contents(checkout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        study.first_output = study.run(RESULT)
    assert contents(checkout) == before
    return study


@pytest.fixture
def study(finished: OwnStudy) -> OwnStudy:
    """The finished study, with its settings put back."""
    finished.configure(**STUDY)
    return finished


def test_study_runs_from_a_checkout_elsewhere(study: OwnStudy) -> None:
    assert "## net, 128x128" in study.first_output
    assert (study.folder / RESULT).is_file()
    assert study.planned(RESULT) == {}


def test_people_left_out_by_a_mistake_are_named_on_the_terminal(study: OwnStudy) -> None:
    assert "    notice: my train/annotations.json: 2 of " in study.first_output


def test_config_of_the_working_folder_is_read(study: OwnStudy) -> None:
    own = study.folder / "config.yaml"
    own.write_text(yaml.safe_dump({"studies": {"mine": {"certificate": {"resamples": 500}}}}))
    try:
        collected = dict.fromkeys(("collect_network", "collect_result", "render_report", "render_result"), 1)
        assert study.planned(RESULT) == {"certify": 1} | collected
    finally:
        own.unlink()


MISSING = [
    ("models.net.checkpoint", "file"),
    ("models.net.config", "config"),
    ("dataset.val.images", "folder"),
    ("dataset.val.annotations", "file"),
    ("dataset.train.images", "folder"),
    ("dataset.train.annotations", "file"),
    ("dataset.detections", "file"),
]


@pytest.mark.parametrize(("key", "kind"), MISSING, ids=[key for key, _ in MISSING])
def test_mistyped_path_stops_after_a_good_run(study: OwnStudy, key: str, kind: str) -> None:
    *steps, last = key.split(".")
    settings = yaml.safe_load(yaml.safe_dump(STUDY))
    place = settings
    for step in steps:
        place = place[step]
    place[last] += "x"
    study.configure(**settings)
    output = study.run(RESULT, succeeds=False)
    assert f"studies.mine.{key}: {place[last]}: no such {kind}" in output
    assert "Traceback" not in output


def test_mistyped_onnx_file_stops_after_a_good_run(study: OwnStudy) -> None:
    size = {"input_size": [128, 128], "mean": [0, 0, 0], "std": [1, 1, 1]}
    codec = {"type": "MSRAHeatmap", "input_size": [128, 128], "heatmap_size": [32, 32], "sigma": 2}
    net = {"source": "onnx", "onnx": "results/mine/net/onnx/simplifed.onnx", **size, "codec": codec}
    study.configure(**STUDY | {"models": {"net": net}})
    output = study.run(RESULT, succeeds=False)
    assert "studies.mine.models.net.onnx: results/mine/net/onnx/simplifed.onnx: no such file" in output


def test_network_in_ncnns_files_scores_what_it_did(study: OwnStudy) -> None:
    results = study.folder / "results/mine"
    for ending in ("param", "bin"):
        shutil.copy2(results / f"net/converted/ncnn-fp32.{ending}", study.folder / f"my net/taken.{ending}")
    param = study.folder / "my net/taken.param"
    param.write_text(param.read_text().replace(" in0", " image").replace(" out0", " 123"))
    described = json.loads((results / "net/model.json").read_text())
    left_out = ("name", "input_name", "output_names", "keypoints")
    settings = {key: described[key] for key in described if key not in left_out}
    files = {"param": "my net/taken.param", "bin": "my net/taken.bin", "input": "image", "outputs": ["123"]}
    study.configure(**STUDY | {"models": {"taken": {"source": "ncnn", **files, **settings}}})
    study.run(*(f"results/mine/taken/{variant}/metrics.json" for variant in STUDY["variants"]))
    for variant in STUDY["variants"]:
        taken, net = (
            json.loads((results / model / variant / "metrics.json").read_text())["statistics"]
            for model in ("taken", "net")
        )
        assert taken == net
    rest = study.planned(RESULT)
    assert (rest["latency"], rest["certify"], rest["collect_result"]) == (1, 1, 1)
    assert not {"import_onnx", "export", "simplify", "convert_ncnn"} & rest.keys()


def test_folder_in_place_of_a_file_is_named(study: OwnStudy) -> None:
    net = {"net": STUDY["models"]["net"] | {"checkpoint": "my net"}}
    study.configure(**STUDY | {"models": net})
    assert "studies.mine.models.net.checkpoint: my net: this is a folder." in study.run(RESULT, succeeds=False)


def test_missing_file_of_another_study_stops_nothing(study: OwnStudy) -> None:
    assert study.planned(RESULT, "--config", "study=coco") == {}


@pytest.fixture
def touched(study: OwnStudy) -> Any:
    """Change a file in place, the time of its folder being left alone; it is put back at the end."""
    saved: list[tuple[Path, bytes, int]] = []

    def touch(path: Path) -> None:
        saved.append((path, path.read_bytes(), path.stat().st_mtime_ns))
        parent = path.parent.stat().st_mtime_ns
        path.write_bytes(path.read_bytes() + b" ")
        assert path.parent.stat().st_mtime_ns == parent

    yield touch
    for path, content, changed in saved:
        path.write_bytes(content)
        os.utime(path, ns=(changed, changed))


def test_evaluation_image_overwritten_in_place_is_noticed(study: OwnStudy, touched: Any) -> None:
    touched(next((study.folder / "my val/images").iterdir()))
    jobs = study.planned(RESULT)
    assert (jobs["evaluation_crops"], jobs["predict"]) == (1, 2)
    assert not {"calibration_crops", "ncnn2table"} & jobs.keys()


def test_calibration_image_overwritten_in_place_is_noticed(study: OwnStudy, touched: Any) -> None:
    people = json.loads((study.folder / "results/mine/calibration.json").read_text())["people"]
    used = {person["image"]["file_name"] for person in people}
    folder = study.folder / "my train/images"
    touched(folder / sorted(used)[0])
    jobs = study.planned(RESULT)
    assert (jobs["calibration_crops"], jobs["ncnn2table"]) == (1, 1)
    assert "evaluation_crops" not in jobs


def test_training_image_that_is_not_used_may_change(study: OwnStudy, touched: Any) -> None:
    people = json.loads((study.folder / "results/mine/calibration.json").read_text())["people"]
    used = {person["image"]["file_name"] for person in people}
    (unused, *_) = sorted({path.name for path in (study.folder / "my train/images").iterdir()} - used)
    touched(study.folder / "my train/images" / unused)
    assert study.planned(RESULT) == {}


def test_files_put_back_rerun_nothing(study: OwnStudy) -> None:
    assert study.planned(RESULT) == {}


def test_workflow_can_be_a_module_of_another(study: OwnStudy) -> None:
    checkout = study.folder.parent / "the checkout"
    (study.folder / "Snakefile").write_text(
        'configfile: "small.yaml"\n'
        f"module posequant:\n    snakefile: {str(checkout / 'Snakefile')!r}\n    config: config\n"
        "use rule * from posequant as posequant_*\n"
        f'rule mine:\n    default_target: True\n    input: "{RESULT}"\n    output: "copy.md"\n'
        '    shell: "cp {input} {output}"\n'
    )
    output = Workflow.run(study, "mine")
    assert (study.folder / "copy.md").read_text() == (study.folder / RESULT).read_text(), output
    # What the workflow made by itself, it finds made as a module.
    assert "posequant_predict" not in output


def test_sigterm_ends_a_run_at_once_and_leaves_nothing_half_written(study: OwnStudy) -> None:
    target = "results/demo/dataset/val"
    log = study.folder / "results/demo/demo_dataset.log"
    command = [sys.executable, "-m", "snakemake", "-s", "../the checkout/Snakefile", "-c2", target]
    with subprocess.Popen(
        command, cwd=study.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        until = time.monotonic() + 120
        while not (log.is_file() and b"image/s" in log.read_bytes()):
            assert run.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        run.terminate()
        output, _ = run.communicate(timeout=60)
    # The job itself takes several times as long as it is given here, and nothing of it goes on.
    assert run.returncode == 1
    assert "The same command goes on from here." in output
    assert not [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(study.folder)]
    assert not (study.folder / target).exists()
    assert not list((study.folder / "results/demo").rglob(".*"))
    assert study.planned(target) == {"demo_dataset": 1}


def test_run_needs_no_path_of_programs(study: OwnStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        "../the checkout/Snakefile",
        "-c2",
        "--configfile",
        "small.yaml",
    ]
    monkeypatch.delenv("PATH")
    done = subprocess.run(
        [*command, "-f", "results/mine/calibration.json"], cwd=study.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
