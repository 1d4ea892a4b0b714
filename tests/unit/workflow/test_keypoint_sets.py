"""Sets of keypoints by their names and from files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mmpose.datasets.datasets.utils import parse_pose_metainfo
from tests.unit.pose_fixtures import SPEC

from posequant.base.errors import InputError
from posequant.base.keypoints import COCO, KeypointSet
from posequant.base.model_spec import ModelSpec
from posequant.workflow.keypoint_sets import find_keypoints, known_sets

HAND: dict[str, Any] = {
    "names": ["wrist", "thumb", "left finger", "right finger"],
    "skeleton": [["wrist", "thumb"], ["wrist", "left finger"]],
    "swaps": [["left finger", "right finger"]],
    "sigmas": [0.03, 0.04, 0.05, 0.05],
}


@pytest.mark.parametrize("name", known_sets())
def test_a_set_of_mmpose_is_what_mmpose_reads(name: str) -> None:
    theirs = parse_pose_metainfo({"from_file": str(known_sets()[name])})
    ours = find_keypoints(name)
    assert list(ours.names) == [theirs["keypoint_id2name"][place] for place in range(len(ours))]
    assert list(ours.flip_indices) == theirs["flip_indices"]
    assert [list(limb) for limb in ours.skeleton] == [list(limb) for limb in theirs["skeleton_links"]]
    np.testing.assert_array_equal(np.array(ours.sigmas or (), np.float32), theirs["sigmas"])


def test_cocos_set_is_the_one_of_mmposes_file() -> None:
    assert find_keypoints("coco") is COCO
    assert replace(find_keypoints(str(known_sets()["coco"])), name="coco") == COCO


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_of_ones_own_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"hand.{suffix}"
    path.write_text(json.dumps(HAND) if suffix == "json" else yaml.safe_dump(HAND))
    expected = KeypointSet(path.name, tuple(HAND["names"]), ((0, 1), (0, 2)), (0, 1, 3, 2), (0.03, 0.04, 0.05, 0.05))
    assert find_keypoints(str(path)) == expected


def test_sigmas_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "hand.json"
    path.write_text(json.dumps({key: value for key, value in HAND.items() if key != "sigmas"}))
    assert find_keypoints(str(path)).sigmas is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["wrist", "wrist", "left finger", "right finger"]}, "names has a keypoint twice"),
        ({"skeleton": [["wrist", "toe"]]}, "skeleton has 'toe', which names does not have"),
        ({"swaps": [["wrist", "thumb"], ["thumb", "left finger"]]}, "swaps has a keypoint twice"),
        ({"sigmas": [0.1]}, "sigmas has 1 numbers for 4 keypoints"),
        ({"sigma": [0.1]}, "unknown key 'sigma'; did you mean 'sigmas'"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "hand.json"
    path.write_text(json.dumps(HAND | change))
    with pytest.raises(InputError, match=message):
        find_keypoints(str(path))


def test_a_file_of_ones_own_is_not_measured_as_a_set_of_mmpose_that_is_called_alike(tmp_path: Path) -> None:
    path = tmp_path / "wflw.yaml"
    path.write_text(yaml.safe_dump(HAND))
    assert find_keypoints(str(path)).name == "wflw.yaml"


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hand.yaml"
    path.write_bytes("names: [pouce, émail]\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"hand\.yaml: not text in UTF-8"):
        find_keypoints(str(path))


@pytest.mark.parametrize(
    ("second", "sigmas", "message"),
    [
        ("dict(name='wrist', id=1)", [0.1, 0.1], "names has a keypoint twice"),
        ("dict(name='thumb', id=1)", [0.1, -1], r"sigmas\.1: "),
        ("dict(name='thumb', id=1, swap='toe')", [0.1, 0.1], "a keypoint is swapped with 'toe'"),
    ],
)
def test_metainfo_of_ones_own_is_checked_as_any_file(
    tmp_path: Path, second: str, sigmas: list[float], message: str
) -> None:
    path = tmp_path / "set.py"
    path.write_text(
        f"dataset_info = dict(keypoint_info={{0: dict(name='wrist', id=0), 1: {second}}}, sigmas={sigmas})\n"
    )
    with pytest.raises(InputError, match=message):
        find_keypoints(str(path))


def test_a_python_file_is_read_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "set.py"
    path.write_text("dataset_info = dict(keypoint_info=__import__('os').listdir('.'))\n")
    with pytest.raises(InputError, match=r"set\.py: not mmpose's metainfo of a dataset"):
        find_keypoints(str(path))


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"there is no set of keypoints 'ap10'.*did you mean 'ap10k'"):
        find_keypoints("ap10")


def test_a_model_description_keeps_its_set(tmp_path: Path) -> None:
    spec = ModelSpec(**(vars(SPEC) | {"keypoints": find_keypoints("crowdpose")}))
    spec.save(tmp_path / "model.json")
    assert ModelSpec.load(tmp_path / "model.json") == spec
    assert spec.output_shapes[0][0] == 14
