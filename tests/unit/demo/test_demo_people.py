import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from posequant.base.errors import InputError
from posequant.base.keypoints import KEYPOINTS
from posequant.demo import drawing
from posequant.demo.camera import View, project
from posequant.demo.person import PERSON, person_figure
from posequant.demo.scenes import FIRST_ID, draw_scene, write_dataset
from posequant.demo.skeleton import (
    Build,
    Limb,
    Pose,
    body_points,
    sample_build,
    sample_pose,
)

COUNTS = {"train": 40, "val": 20}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_dataset(folder, COUNTS, seed=3)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def coco(dataset: Path, split: str) -> COCO:
    return COCO(dataset / "annotations" / f"person_keypoints_{split}.json")


def test_the_bytes_do_not_depend_on_the_number_of_processes(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "again", COUNTS, seed=3, processes=2)
    assert digests(tmp_path / "again") == digests(dataset)


def test_a_smaller_dataset_is_the_beginning_of_a_larger_one(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "less", {"train": 3, "val": 2}, seed=3)
    images = {name: digest for name, digest in digests(tmp_path / "less").items() if name.endswith(".jpg")}
    assert len(images) == 5
    assert images.items() <= digests(dataset).items()


def test_another_seed_and_the_other_split_draw_other_images() -> None:
    images = [draw_scene(seed, split, 0).image for seed, split in ((0, "train"), (1, "train"), (0, "val"))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert images[one].shape != images[other].shape or (images[one] != images[other]).mean() > 0.5


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_are_valid_coco(dataset: Path, split: str) -> None:
    truth = coco(dataset, split)
    assert len(truth.imgs) == COUNTS[split]
    assert truth.loadCats(1)[0]["keypoints"] == list(KEYPOINTS)
    for image_id, image in truth.imgs.items():
        picture = cv2.imread(str(dataset / split / image["file_name"]))
        assert picture is not None
        assert picture.shape == (image["height"], image["width"], 3)
        assert truth.getAnnIds(imgIds=image_id)
    for annotation in truth.anns.values():
        image = truth.imgs[annotation["image_id"]]
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= image["width"]
        assert 0 <= y < y + height <= image["height"]
        assert 0 < annotation["area"] <= width * height
        keypoints = np.array(annotation["keypoints"]).reshape(17, 3)
        labelled = keypoints[:, 2] > 0
        assert annotation["num_keypoints"] == labelled.sum() >= 6
        assert (keypoints[~labelled] == 0).all()
        assert ((keypoints[labelled, :2] >= 0) & (keypoints[labelled, :2] <= (image["width"], image["height"]))).all()
        # What is seen of a person is inside its box, but for joints near the skin's outline.
        seen = keypoints[keypoints[:, 2] == 2, :2]
        assert (seen >= np.array([x, y]) - 1).all()
        assert (seen <= np.array([x + width, y + height]) + 1).all()


def test_no_image_or_annotation_id_is_in_both_splits(dataset: Path) -> None:
    train, val = coco(dataset, "train"), coco(dataset, "val")
    assert not set(train.imgs) & set(val.imgs)
    assert not set(train.anns) & set(val.anns)
    assert max(train.imgs) <= FIRST_ID["val"] < min(val.imgs)


def test_every_visibility_and_several_people_occur(dataset: Path) -> None:
    people = list(coco(dataset, "train").anns.values())
    flags = np.array([annotation["keypoints"][2::3] for annotation in people])
    shares = [(flags == flag).mean() for flag in (0, 1, 2)]
    assert min(shares) > 0.05
    assert shares[2] > 0.4
    crowds = np.bincount([annotation["image_id"] for annotation in people])
    assert {1, 2, 3} <= set(crowds.tolist())
    assert max(a["area"] for a in people) / min(a["area"] for a in people) > 8


@pytest.mark.parametrize(("counts", "seed"), [({"train": 0, "val": 1}, 0), ({"train": 1, "val": 1}, -1)])
def test_senseless_requests_are_refused(counts: dict[str, int], seed: int, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_dataset(tmp_path / "data", counts, seed)
    assert not (tmp_path / "data").exists()


angles = st.floats(-3.0, 3.0)
limbs = st.builds(Limb, lift=st.floats(0, 3.1), turn=angles, flex=st.floats(0, 2.5), twist=angles)
poses = st.builds(
    Pose,
    lean=angles,
    side_bend=angles,
    shoulder_twist=angles,
    head_yaw=angles,
    head_pitch=angles,
    arms=st.tuples(limbs, limbs),
    legs=st.tuples(limbs, limbs),
)


@given(poses)
def test_bones_keep_their_lengths_in_every_pose(pose: Pose) -> None:
    rest = Limb(0.0, 0.0, 0.0)
    posed = body_points(pose, Build())
    resting = body_points(Pose(0, 0, 0, 0, 0, (rest, rest), (rest, rest)), Build())
    for side in ("left", "right"):
        bones = ["shoulder elbow", "elbow wrist", "wrist hand", "hip knee", "knee ankle"]
        for start, end in (bone.split() for bone in bones):
            lengths = [np.linalg.norm(p[f"{side}_{start}"] - p[f"{side}_{end}"]) for p in (posed, resting)]
            assert lengths[0] == pytest.approx(lengths[1])


@given(poses)
def test_a_mirrored_pose_swaps_left_and_right(pose: Pose) -> None:
    points, mirrored = body_points(pose, Build()), body_points(pose.mirrored(), Build())
    for name in KEYPOINTS:
        swapped = name.replace("left", "#").replace("right", "left").replace("#", "right")
        np.testing.assert_allclose(mirrored[swapped], points[name] * (-1, 1, 1), atol=1e-9)


@given(st.integers(0, 2**32), st.floats(-0.9, 0.9))
def test_the_left_side_is_at_the_right_in_front_views_and_at_the_left_in_back_views(seed: int, turn: float) -> None:
    rng = np.random.default_rng(seed)
    body = body_points(sample_pose(rng), sample_build(rng))
    for yaw, sign in ((turn, 1), (np.pi + turn, -1)):
        points = project(body, View(yaw, 0.0, 0.0, 100, (50, 50)))
        assert sign * (points["left_hip"][0] - points["right_hip"][0]) > 0


def figure(yaw: float) -> drawing.Figure:
    arm, leg = Limb(0.6, np.pi / 2, 0.0), Limb(0.15, np.pi / 2, 0.0)
    body = body_points(Pose(0, 0, 0, 0, 0, (arm, arm), (leg, leg)), Build())
    points = project(body, View(yaw, 0.0, 0.0, 200, (100, 130)))
    return person_figure(points, Build(), 200, long_hair=False, short_sleeves=False)


def visible(view: drawing.Figure, covered: str | None = None) -> dict[str, int]:
    canvas = np.zeros((500, 400), np.uint8)
    drawing.draw_figure(canvas, view, 0)
    if covered:
        x, y = (drawing.SCALE * view.points[covered][:2]).astype(int)
        canvas[y - 3 : y + 4, x - 3 : x + 4] = drawing.FIRST_OBJECT_LABEL
    return dict(zip(KEYPOINTS, drawing.visibility(canvas, view, PERSON, 0).tolist(), strict=True))


def test_a_front_view_shows_everything_and_a_back_view_no_face() -> None:
    assert set(visible(figure(0.0)).values()) == {2}
    back = visible(figure(np.pi))
    assert {name for name, flag in back.items() if flag == 0} == {"nose", "left_eye", "right_eye"}
    assert {back[name] for name in KEYPOINTS[3:]} == {2}


def test_a_side_view_hides_the_far_side() -> None:
    seen_from_the_left = visible(figure(np.pi / 2))
    near = {joint: seen_from_the_left[f"left_{joint}"] for joint in ("eye", "ear", "shoulder", "wrist", "knee")}
    far = {joint: seen_from_the_left[f"right_{joint}"] for joint in near}
    assert set(near.values()) == {2}
    assert 2 not in far.values()


@pytest.mark.parametrize("keypoint", ["nose", "left_wrist", "right_knee"])
def test_what_an_object_covers_is_hidden(keypoint: str) -> None:
    assert {name for name, flag in visible(figure(0.0), covered=keypoint).items() if flag == 1} == {keypoint}


def test_a_figure_outside_the_image_has_no_visible_keypoints() -> None:
    view = figure(0.0)
    canvas = np.zeros((8, 8), np.uint8)
    assert set(drawing.visibility(canvas, view, PERSON, 0).tolist()) == {0}


def test_the_annotation_files_are_reproducible_text(dataset: Path) -> None:
    content = json.loads((dataset / "annotations" / "person_keypoints_val.json").read_text())
    assert list(content) == ["info", "licenses", "images", "annotations", "categories"]
    assert "date_created" not in content["info"]
