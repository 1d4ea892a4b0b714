"""AP that a network loses on labelled people, by hand and by pycocotools."""

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.pose_fixtures import draw_people

from posequant.base.errors import InputError
from posequant.base.keypoints import KeypointSet
from posequant.evaluate.bootstrap import draw_images, interval
from posequant.recipe.precision import PrecisionLoss

COUNT = 8
# Everybody once, and draws of them.
DRAWS = np.concatenate([np.ones((1, COUNT), np.int32), draw_images(COUNT, 1000, seed=0)])
SCORES = np.tile(np.linspace(0.5, 0.9, COUNT, dtype=np.float32)[:, np.newaxis], 17)


def test_loss_of_a_missed_person_by_hand() -> None:
    people = draw_people(COUNT)
    loss = PrecisionLoss(people, people.keypoints, SCORES, DRAWS)
    moved = people.keypoints.copy()
    moved[0] += 100
    found = loss(moved, SCORES)
    # The one with the lowest score is missed: 7 of 8 people are found, with a precision of 1, at 88 of 101 recalls.
    assert found[0] == pytest.approx(13 / 101)
    between = interval(found[1:], 0.95)
    assert between is not None
    low, high = between
    assert low == pytest.approx(0)
    assert 13 / 101 < high < 0.5


def test_nothing_is_lost_by_the_reference_itself() -> None:
    people = draw_people(COUNT)
    loss = PrecisionLoss(people, people.keypoints, SCORES, DRAWS)(people.keypoints, SCORES)
    np.testing.assert_array_equal(loss, 0)


def test_keypoints_without_labels_do_not_count() -> None:
    people = draw_people(COUNT)
    loss = PrecisionLoss(people, people.keypoints, SCORES, DRAWS)
    moved = np.where(people.visible[..., np.newaxis], people.keypoints, np.float32(1000))
    assert loss(moved, SCORES)[0] == 0


def test_people_without_labels_are_refused() -> None:
    people = draw_people(COUNT)
    with pytest.raises(InputError, match="has a labelled keypoint"):
        PrecisionLoss(replace(people, visible=people.visible & False), people.keypoints, SCORES, DRAWS)


def test_a_gain_is_a_negative_loss() -> None:
    people = draw_people(COUNT)
    worse = people.keypoints.copy()
    worse[0] += 100
    loss = PrecisionLoss(people, worse, SCORES, DRAWS)(people.keypoints, SCORES)
    assert loss[0] == pytest.approx(-13 / 101)


def test_other_keypoints_count_by_their_own_sigmas() -> None:
    people = draw_people(COUNT)
    few = replace(people, keypoints=people.keypoints[:, :5], visible=people.visible[:, :5] | True)
    moved = few.keypoints.copy()
    moved[0] += 100
    losses = {}
    for sigma in (0.05, 1000.0):
        found = KeypointSet("own", tuple("abcde"), (), tuple(range(5)), (sigma,) * 5)
        losses[sigma] = PrecisionLoss(few, few.keypoints, SCORES[:, :5], DRAWS, found)(moved, SCORES[:, :5])[0]
    assert losses == {0.05: pytest.approx(13 / 101), 1000.0: 0}


def test_without_sigmas_pck_is_lost() -> None:
    people = draw_people(COUNT)
    people = replace(people, visible=people.visible | True)
    moved = people.keypoints.copy()
    # One of 17 keypoints of one person is farther off than a fifth of the box.
    moved[0, 0] += 0.3 * (people.bboxes[0, 2:] - people.bboxes[0, :2]).max()
    found = KeypointSet("own", tuple(map(str, range(17))), (), tuple(range(17)), None)
    loss = PrecisionLoss(people, people.keypoints, SCORES, DRAWS, found)(moved, SCORES)
    assert loss[0] == pytest.approx(1 / (17 * COUNT))
    # In the draws, that person is there from never to a few times.
    assert loss[1:].min() == 0
    assert set(np.round(loss[1:] * 17 * COUNT, 6)) <= set(range(COUNT + 1))
