"""Layers in float for a budget: what is tried, what decides, and what each layer alone does."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Builder, Floats, draw_crops

from posequant.errors import InputError
from posequant.model_spec import ModelSpec
from posequant.ncnn_model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize_ncnn import quantize
from posequant.recipe.budget import Judge, hold_budget, ladder
from posequant.recipe.draft import Draft
from posequant.recipe.output_error import errors_alone
from posequant.recipe.recipe import apply_recipe

SPEC = ModelSpec(
    name="small",
    input_size=(12, 16),
    mean=(0, 0, 0),
    std=(1, 1, 1),
    to_rgb=True,
    padding=1.25,
    use_udp=False,
    codec={"type": "MSRAHeatmap", "input_size": [12, 16], "heatmap_size": [12, 16], "sigma": 2},
    flip_mode="heatmap",
    shift_heatmap=False,
    input_name="input",
    output_names=("output",),
)
CROPS = list(draw_crops(8))
SCALES: list[dict[str, dict[str, Any]]] = [
    {"weights": {"bits": 8, "scales": "absmax"}},
    {"activations": {"method": "absmax"}},
]


def pose_network() -> NcnnModel:
    """A network from crops to 17 heatmaps: a convolution, a depthwise one and two more."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> Floats:
        values: Floats = rng.normal(size=shape, scale=np.prod(shape[1:]) ** -0.5).astype(np.float32)
        return values

    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(8, 3, 3, 3), weight(8), relu=True)
        .convolution("convdw_b", "a", "b", weight(8, 1, 3, 3), weight(8), group=8)
        .convolution("conv_c", "b", "c", weight(16, 8, 1, 1), weight(16), relu=True)
        .convolution("conv_d", "c", "out0", weight(17, 16, 1, 1), weight(17))
        .model()
    )


@pytest.fixture(scope="module")
def draft() -> Draft:
    return apply_recipe(SCALES, pose_network(), CROPS, 1)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.of(SPEC, pose_network(), draw_crops(8, seed=5), 2)


def test_error_of_a_layer_alone_is_that_of_a_network_with_no_other_in_int8(draft: Draft, tmp_path: Path) -> None:
    files = tmp_path / "m.param", tmp_path / "m.bin"
    crops = np.stack(CROPS)
    draft.reference.write(*files)
    wanted = NcnnNetwork(*files, "fp32", INPUT_SHAPE).forward(crops)[0]
    alone = errors_alone(draft, CROPS, 2)
    for name in draft.names:
        only = replace(draft, keep_float=frozenset(draft.names) - {name})
        quantize(only.model, only.table).write(*files)
        found = NcnnNetwork(*files, "int8", INPUT_SHAPE).forward(crops)[0]
        # Float layers of an INT8 file have weights of half precision.
        assert alone[name] == pytest.approx(((found - wanted) ** 2).sum() / (wanted**2).sum(), rel=0.05), name


def test_ladder_starts_with_depthwise_layers_and_grows(draft: Draft) -> None:
    rungs = list(ladder(draft, CROPS, 1))
    assert [len(kept) for _, kept in rungs] == [0, 1, 2, 3]
    assert rungs[1] == ("1 depthwise layers in float", frozenset({"convdw_b"}))
    for (_, fewer), (_, more) in itertools.pairwise(rungs):
        assert fewer < more


def test_budget_that_holds_at_once_keeps_nothing_in_float(draft: Draft, judge: Judge) -> None:
    held = hold_budget(draft, CROPS, 1, oks_loss=1, judge=judge)
    assert held.keep_float == frozenset()
    (rung,) = held.rungs
    assert rung.step == "as before"
    assert rung.milliseconds is not None


def test_first_rung_that_holds_the_budget_is_taken(draft: Draft, judge: Judge) -> None:
    tried = hold_budget(draft, CROPS, 1, oks_loss=1e-9, judge=judge).rungs
    losses = [rung.oks_loss for rung in tried if rung.oks_loss is not None]
    assert len(losses) == 4
    budget = min(losses)
    held = hold_budget(draft, CROPS, 1, oks_loss=budget, judge=judge)
    first = next(index for index, loss in enumerate(losses) if loss <= budget)
    assert len(held.rungs) == first + 1
    assert held.keep_float == set(tried[first].keep_float)
    # What is decided by is the real INT8 network.
    assert judge.measure(held, 1).oks_loss == budget


def test_budget_that_nothing_holds_takes_the_best_and_says_so(
    draft: Draft, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    held = hold_budget(draft, CROPS, 1, oks_loss=1e-9, judge=judge)
    losses = [rung.oks_loss for rung in held.rungs if rung.oks_loss is not None]
    assert judge.measure(held, 1).oks_loss == min(losses)
    assert "no set of layers holds the budget of 1e-09" in capsys.readouterr().err


def test_layers_in_float_are_as_the_float_network_has_them(draft: Draft, judge: Judge) -> None:
    spoiled = draft.with_weights({"convdw_b": {"weight": draft.model.named("convdw_b")[1]["weight"] * np.float32(0.5)}})
    held = hold_budget(spoiled, CROPS, 1, oks_loss=1e-9, judge=judge)
    assert "convdw_b" in held.keep_float
    expected = draft.reference.named("convdw_b")[1]["weight"]
    np.testing.assert_array_equal(held.model.named("convdw_b")[1]["weight"], expected)


def test_float_model_grows_by_what_stays_in_float(draft: Draft, judge: Judge) -> None:
    first, second, *_ = hold_budget(draft, CROPS, 1, oks_loss=1e-9, judge=judge).rungs
    # float16 for INT8 weights, and no scales: 8 of weights, one each of input and (it was requantized) of output.
    assert second.megabytes - first.megabytes == pytest.approx((8 * 9 * (2 - 1) - 4 * (8 + 1 + 1 + 1)) / 1e6)


def test_the_people_that_decide_are_seen_by_no_other_step() -> None:
    recipe: list[dict[str, dict[str, Any]]] = [*SCALES, {"budget": {"oks_loss": 1}}]
    others = CROPS[:4] + list(draw_crops(4, seed=9) * 100)
    one, other = (apply_recipe(recipe, pose_network(), crops, 1, SPEC) for crops in (CROPS, others))
    assert one.activation_scales == other.activation_scales
    whole = apply_recipe(SCALES, pose_network(), others, 1)
    assert whole.activation_scales != other.activation_scales


def test_choice_does_not_depend_on_threads() -> None:
    recipe: list[dict[str, dict[str, Any]]] = [*SCALES, {"round": {}}, {"budget": {"oks_loss": 0.001}}]
    one, three = (apply_recipe(recipe, pose_network(), CROPS, threads, SPEC) for threads in (1, 3))
    assert one.keep_float == three.keep_float
    for ours, theirs in zip(one.model.weights, three.model.weights, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_budget_without_a_description_is_refused() -> None:
    with pytest.raises(InputError, match="needs the model's description"):
        apply_recipe([*SCALES, {"budget": {"oks_loss": 1}}], pose_network(), CROPS, 1)
