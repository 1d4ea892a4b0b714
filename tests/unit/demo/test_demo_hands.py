import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posequant.demo import drawing
from posequant.demo.camera import View, project
from posequant.demo.hand import FINGERS, HAND, KEYPOINTS, SKELETON, Pose, hand_figure, hand_points, nail
from posequant.demo.scenes import draw_scene, write_dataset
from posequant.workflow.keypoint_sets import find_keypoints
from posequant.workflow.settings.demo import DRAWN_KEYPOINTS

OPEN = Pose((0.0,) * 5, 1.0, left=False)
poses = st.builds(Pose, curls=st.tuples(*[st.floats(0, 1.5)] * 5), spread=st.floats(0.5, 1.5), left=st.booleans())


def test_the_keypoints_are_those_that_mmpose_has_for_hands() -> None:
    known = find_keypoints(DRAWN_KEYPOINTS["hand"])
    assert known.names == KEYPOINTS
    assert known.skeleton == SKELETON


@settings(deadline=None)
@given(poses)
def test_bones_keep_their_lengths_in_every_pose(pose: Pose) -> None:
    points = hand_points(pose)
    for name, finger in FINGERS.items():
        joints = np.array([points[f"{name}{joint}"] for joint in range(1, 5)])
        np.testing.assert_allclose(np.linalg.norm(np.diff(joints, axis=0), axis=1), finger.lengths)


@settings(deadline=None)
@given(poses)
def test_a_left_hand_is_a_right_hand_in_a_mirror(pose: Pose) -> None:
    one, other = (hand_points(Pose(pose.curls, pose.spread, left=left)) for left in (False, True))
    for name in KEYPOINTS:
        np.testing.assert_array_equal(other[name], one[name] * (-1, 1, 1))


def figure(pose: Pose = OPEN, yaw: float = 0.0) -> drawing.Figure:
    return hand_figure(project(hand_points(pose), View(yaw, 0.0, 0.0, 100, (100, 100))), 100)


def drawn(view: drawing.Figure) -> drawing.Labels:
    canvas = np.zeros((400, 400), np.uint8)
    drawing.draw_figure(canvas, view, 0)
    return canvas


def flags(canvas: drawing.Labels, view: drawing.Figure) -> dict[str, int]:
    return dict(zip(KEYPOINTS, drawing.visibility(canvas, view, HAND, 0).tolist(), strict=True))


@pytest.mark.parametrize("yaw", [0.0, np.pi], ids=["palm", "back"])
def test_an_open_hand_shows_every_keypoint(yaw: float) -> None:
    view = figure(yaw=yaw)
    assert set(flags(drawn(view), view).values()) == {2}


def test_only_the_back_of_an_open_hand_shows_nails() -> None:
    nails = {drawing.first_label(0) + nail(finger) for finger in range(5)}
    assert not nails & set(drawn(figure(yaw=0.0)).flat)
    assert nails <= set(drawn(figure(yaw=np.pi)).flat)


def test_the_back_of_a_hand_hides_the_tips_of_bent_fingers() -> None:
    view = figure(Pose((0.0, 1.5, 1.5, 1.5, 1.5), 1.0, left=False), yaw=np.pi)
    seen = flags(drawn(view), view)
    assert {seen[f"{finger}4"] for finger in FINGERS if finger != "thumb"} == {1}
    assert seen["thumb4"] == seen["wrist"] == 2


def test_what_an_object_covers_is_hidden() -> None:
    view = figure()
    canvas = drawn(view)
    x, y = (drawing.SCALE * view.points["ring_finger3"][:2]).astype(int)
    canvas[y - 3 : y + 4, x - 3 : x + 4] = drawing.FIRST_OBJECT_LABEL
    assert [name for name, flag in flags(canvas, view).items() if flag != 2] == ["ring_finger3"]


def test_a_dataset_of_hands_says_so_and_has_21_keypoints_of_each(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"train": 2, "val": 3}, seed=1, kind=HAND)
    content = json.loads((tmp_path / "data/annotations/person_keypoints_val.json").read_text())
    (category,) = content["categories"]
    assert (category["name"], category["keypoints"]) == ("hand", list(KEYPOINTS))
    assert len(content["images"]) == 3
    assert {len(annotation["keypoints"]) for annotation in content["annotations"]} == {63}
    assert min(annotation["num_keypoints"] for annotation in content["annotations"]) >= HAND.min_visible


def test_hands_of_another_seed_are_others() -> None:
    one, other = (draw_scene(seed, "val", 0, HAND).image for seed in (0, 1))
    assert one.shape != other.shape or (one != other).mean() > 0.5
