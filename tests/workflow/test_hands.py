"""The study of drawn hands, on a few of them: keypoints that are not COCO's, from the images to the page."""

import json
import re
import zipfile
from collections import Counter

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
    "models": {"hand_demo": {"license": None}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder = tmp_path_factory.mktemp("hands")
    copy_checkout(folder)
    workflow = Workflow(folder)
    (folder / "small.yaml").write_text(yaml.safe_dump({"study": "hand", "studies": {"hand": SMALL}}))
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


def test_a_package_names_the_keypoints_of_hands_and_no_licence_that_is_not_said(
    finished: Workflow, hands: KeypointSet
) -> None:
    package = f"{MODEL}/ncnn-int8/package.zip"
    finished.run(package)
    with zipfile.ZipFile(finished.folder / package) as archive:
        description = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith("model.json"))))
    assert description["keypoints"]["names"] == [*hands.names]
    assert not description["license"]


def test_nothing_is_left_to_do(finished: Workflow) -> None:
    assert finished.planned("results/hand/result.md") == Counter()
