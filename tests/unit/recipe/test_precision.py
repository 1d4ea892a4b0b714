"""AP that a network loses on labelled people, by hand and by pycocotools."""

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.pose_fixtures import draw_labels

from posequant.base.errors import InputError
from posequant.recipe.precision import PrecisionLoss

COUNT = 8
SCORES = np.tile(np.linspace(0.5, 0.9, COUNT, dtype=np.float32)[:, np.newaxis], 17)


def test_loss_of_a_missed_person_by_hand() -> None:
    labels = draw_labels(COUNT)
    loss = PrecisionLoss(labels, labels.keypoints, SCORES)
    moved = labels.keypoints.copy()
    moved[0] += 100
    found = loss(moved, SCORES)
    # The one with the lowest score is missed: 7 of 8 people are found, with a precision of 1, at 88 of 101 recalls.
    assert found.estimate == pytest.approx(13 / 101)
    assert found.interval is not None
    low, high = found.interval
    assert low == pytest.approx(0)
    assert 13 / 101 < high < 0.5


def test_nothing_is_lost_by_the_reference_itself() -> None:
    labels = draw_labels(COUNT)
    loss = PrecisionLoss(labels, labels.keypoints, SCORES)(labels.keypoints, SCORES)
    assert loss.estimate == 0
    assert loss.interval == (0, 0)


def test_keypoints_without_labels_do_not_count() -> None:
    labels = draw_labels(COUNT)
    loss = PrecisionLoss(labels, labels.keypoints, SCORES)
    moved = np.where(labels.visible[..., np.newaxis], labels.keypoints, np.float32(1000))
    assert loss(moved, SCORES).estimate == 0


def test_people_without_labels_are_refused() -> None:
    labels = draw_labels(COUNT)
    with pytest.raises(InputError, match="has a labelled keypoint"):
        PrecisionLoss(replace(labels, visible=labels.visible & False), labels.keypoints, SCORES)


def test_a_gain_is_a_negative_loss() -> None:
    labels = draw_labels(COUNT)
    worse = labels.keypoints.copy()
    worse[0] += 100
    loss = PrecisionLoss(labels, worse, SCORES)(labels.keypoints, SCORES)
    assert loss.estimate == pytest.approx(-13 / 101)
