"""The study of drawn hands, on a few of them: keypoints that are not COCO's, from the images to the page."""

import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.workflow.test_workflow import Workflow, copy_checkout

from posequant.base.keypoints import KeypointSet
from posequant.evaluate.predictions import Predictions
from posequant.workflow.keypoint_sets import find_keypoints

MODEL = "results/hand/hand_demo"
VARIANTS = ["ncnn", "ncnn-int8", "ncnn-int8-tuned"]
SMALL = {
    "dataset": {"synthetic": {"kind": "hand", "train_images": 12, "val_images": 16}},
    "calibration": {"people": 8},
    "variants": VARIANTS,
}


# The same hands, with the keypoints of a dataset that has no sigmas.
PLAIN = {
    "dataset": {
        "keypoints": "onehand10k",
        **{
            split: {
                "images": f"results/hand/dataset/{split}",
                "annotations": f"results/hand/dataset/annotations/person_keypoints_{split}.json",
            }
            for split in ("train", "val")
        },
    },
    "calibration": {"people": 8},
    "models": {
        "plain_demo": {
            "source": "mmpose",
            "config": "models/hand_demo/config.py",
            "checkpoint": "models/hand_demo/checkpoint.pth",
        }
    },
    "variants": ["ncnn", "ncnn-int8-tuned"],
    "attribution": ["ncnn-int8-tuned"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder = tmp_path_factory.mktemp("hands")
    copy_checkout(folder)
    workflow = Workflow(folder)
    studies = {"hand": SMALL, "plain": PLAIN}
    (folder / "small.yaml").write_text(yaml.safe_dump({"study": "hand", "studies": studies}))
    workflow.first_output = workflow.run("results/hand/result.md")
    return workflow


@pytest.fixture(scope="module")
def hands() -> KeypointSet:
    return find_keypoints("coco_wholebody_hand")


def test_the_description_of_the_network_has_the_keypoints_of_hands(finished: Workflow, hands: KeypointSet) -> None:
    content = json.loads((finished.folder / MODEL / "model.json").read_text())
    assert KeypointSet.of(content["keypoints"]) == hands


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_row_finds_the_keypoints_of_hands(finished: Workflow, hands: KeypointSet, variant: str) -> None:
    predictions = Predictions.load(finished.folder / MODEL / variant / "predictions.npz")
    assert predictions.keypoints == hands
    assert np.isfinite(predictions.poses.keypoints).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_row_is_scored_by_the_average_precision_of_hands(finished: Workflow, variant: str) -> None:
    statistics = json.loads((finished.folder / MODEL / variant / "metrics.json").read_text())["statistics"]
    assert statistics["AP"] > 0.1


def test_the_page_has_a_section_for_every_row(finished: Workflow) -> None:
    page = (finished.folder / "results/hand/result.md").read_text()
    sections = re.findall(r"^## (.*)$", page.partition("# Backends")[2], flags=re.MULTILINE)
    assert sections == ["ncnn FP32", "ncnn INT8", "ncnn INT8 tuned"]


@pytest.fixture(scope="module")
def unscored(finished: Workflow) -> Workflow:
    """The same hands as a study of keypoints without sigmas, with a recipe and an attribution."""
    finished.run("results/plain/result.md", "--config", "study=plain")
    return finished


@pytest.mark.parametrize(
    "page",
    [
        "result.md",
        *(f"plain_demo/ncnn-int8-tuned/{name}" for name in ("certificate", "recipe", "attribution", "pictures")),
    ],
)
def test_pages_of_keypoints_without_sigmas_speak_of_pck_and_nme(unscored: Workflow, page: str) -> None:
    text = (unscored.folder / "results/plain" / page).with_suffix(".md").read_text()
    assert re.search(r"\b(PCK|NME)\b", text)
    text = text.replace("so there is neither OKS nor AP", "")
    # The settings at the end have keys such as oks_loss, in small letters.
    assert not re.findall(r".*\b(?:OKS|AP)\b.*", text)


def test_figures_of_keypoints_without_sigmas(unscored: Workflow) -> None:
    metrics = json.loads((unscored.folder / "results/plain/plain_demo/ncnn/metrics.json").read_text())
    assert list(metrics["statistics"]) == ["PCK", "AUC", "EPE", "NME"]
    assert metrics["statistics"]["PCK"] > 0.9


def test_results_of_keypoints_without_sigmas_are_compared(unscored: Workflow) -> None:
    script, path = (unscored.folder / name for name in ("scripts/compare.py", "results/plain/result.json"))
    compared = subprocess.run([sys.executable, script, path, path], capture_output=True, text=True, check=True).stdout
    assert "Within the tolerance" in compared
    assert not re.search(r"\b(OKS|AP)\b", compared)


def test_a_package_names_the_keypoints_of_hands_and_no_licence_that_is_not_said(unscored: Workflow) -> None:
    package = "results/plain/plain_demo/ncnn-int8-tuned/package.zip"
    unscored.run(package)
    with zipfile.ZipFile(unscored.folder / package) as archive:
        (name,) = (name for name in archive.namelist() if Path(name).name == "model.json")
        description = json.loads(archive.read(name))
    assert description["keypoints"] == [*find_keypoints("onehand10k").names]
    assert not description["license"]
    assert 0 < description["certificate"]["nme_to_fp32"]["value"] < 0.1


def test_nothing_is_left_to_do(finished: Workflow) -> None:
    assert finished.planned("results/hand/result.md") == Counter()
