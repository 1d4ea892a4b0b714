"""Steps that are kept or undone, alone and in groups."""

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import draw_crops
from tests.unit.pose_fixtures import SCALES, SPEC, draw_people, pose_network

from posequant.recipe.draft import Draft
from posequant.recipe.judge import Judge
from posequant.recipe.keeping import judged
from posequant.recipe.recipe import apply_recipe
from posequant.workflow.settings.recipe import Steps

CROPS = list(draw_crops(8))
GOOD: Steps = [{"weights": {}}, {"activations": {"method": "absmax"}}]
POOR: Steps = [{"weights": {}}, {"activations": {"method": "percentile", "share": 0.8}}]
POORER: Steps = [{"weights": {}}, {"activations": {"method": "percentile", "share": 0.6}}]
EQUALIZE: Steps = [{"equalize": {"strength": 0.1}}]


@pytest.fixture
def judge() -> Judge:
    return Judge(SPEC, pose_network(), draw_crops(8, seed=5), draw_people(8), 1, labelled=False, timed=False)


def undone(recipe: Steps, judge: Judge) -> tuple[Draft, list[bool]]:
    """What a recipe makes of the network, and which of the networks that were measured were undone."""
    draft = apply_recipe(recipe, pose_network(), CROPS, 1, judge)
    return draft, [rung.undone for rung in draft.rungs]


def assert_same(one: Draft, other: Draft) -> None:
    assert one.activation_scales == other.activation_scales
    assert one.keep_float == other.keep_float
    for name in one.names:
        for key, values in one.model.named(name)[1].items():
            np.testing.assert_array_equal(values, other.model.named(name)[1][key])


def test_step_that_makes_the_outputs_worse_is_undone(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    draft = apply_recipe(SCALES, pose_network(), CROPS, 1, judge)
    worse = replace(draft, activation_scales={name: scale * 8 for name, scale in draft.activation_scales.items()})
    kept = judged(draft, worse, "narrow ranges", judge)
    assert kept.activation_scales == draft.activation_scales
    assert [rung.undone for rung in kept.rungs] == [False, True]
    assert kept.standing is draft.standing
    assert "narrow ranges makes the outputs worse and is undone" in capsys.readouterr().err
    literal = judged(draft, worse, "narrow ranges", judge, undo=False)
    assert literal.activation_scales == worse.activation_scales
    assert literal.standing.step == "narrow ranges"


def test_each_step_is_measured_once_all_scales_are_there(judge: Judge) -> None:
    recipe: Steps = [*SCALES, {"weights": {"bits": 6, "scales": "absmax"}}, {"correct-bias": {"crops": 2}}]
    rungs = apply_recipe(recipe, pose_network(), CROPS, 1, judge).rungs
    assert [rung.step for rung in rungs] == [
        "weights (8, absmax); activations (absmax)",
        "weights (6, absmax)",
        "correct-bias",
    ]


def test_any_recipe_undoes_what_makes_it_worse(judge: Judge) -> None:
    draft, which = undone([*GOOD, *POOR[1:], *GOOD[1:]], judge)
    assert which == [False, True, False]
    assert_same(draft, apply_recipe(GOOD, pose_network(), CROPS, 1))


def test_what_prepares_the_first_scales_is_judged_with_them(judge: Judge) -> None:
    draft, which = undone([*EQUALIZE, *GOOD], judge)
    assert which == [False]
    assert draft.standing.step == "equalize (0.1); weights (8, absmax); activations (absmax)"


def test_group_that_makes_it_worse_is_undone_as_a_whole(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    draft, which = undone([*GOOD, *EQUALIZE, *POORER, *POOR[1:]], judge)
    # Within the group each is judged by the one before it.
    assert which == [False, True, True]
    assert_same(draft, apply_recipe(GOOD, pose_network(), CROPS, 1))
    np.testing.assert_array_equal(
        draft.reference.named("conv_c")[1]["weight"], pose_network().named("conv_c")[1]["weight"]
    )
    group = "equalize (0.1); weights (8, absmax); activations (percentile); activations (percentile)"
    assert f"{group} make the outputs worse and are undone" in capsys.readouterr().err


def test_group_may_begin_worse_than_it_ends(judge: Judge) -> None:
    draft, which = undone([*POOR, *EQUALIZE, *POORER, *GOOD[1:]], judge)
    assert which == [False, False, False]
    assert_same(draft, apply_recipe([*EQUALIZE, *GOOD], pose_network(), CROPS, 1))


def test_step_within_a_group_is_undone_by_itself(judge: Judge) -> None:
    draft, which = undone([*POOR, *EQUALIZE, *GOOD, *POORER[1:]], judge)
    assert which == [False, False, True]
    assert_same(draft, apply_recipe([*EQUALIZE, *GOOD], pose_network(), CROPS, 1))


def test_group_ends_before_a_step_that_its_rival_had_not(judge: Judge) -> None:
    draft, which = undone([*GOOD, *EQUALIZE, *POOR, {"correct-bias": {}}], judge)
    assert which[:2] == [False, True]
    corrected, _ = undone([*GOOD, {"correct-bias": {}}], judge)
    assert_same(draft, corrected)


def test_each_group_is_compared_with_the_best_before_it(judge: Judge) -> None:
    draft, which = undone([*GOOD, *EQUALIZE, *POOR, *EQUALIZE, *POORER], judge)
    assert which == [False, True, True]
    assert_same(draft, apply_recipe(GOOD, pose_network(), CROPS, 1))


def test_biases_of_new_scales_are_not_corrected(judge: Judge) -> None:
    recipe: Steps = [*POORER, {"correct-bias": {}}, *EQUALIZE, *GOOD]
    assert not apply_recipe(recipe, pose_network(), CROPS, 1).biases_corrected
    assert apply_recipe(recipe[:-3], pose_network(), CROPS, 1).biases_corrected
