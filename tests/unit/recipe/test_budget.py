"""Layers in float for a budget: what is tried, what decides, what is said."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import Builder, draw_crops, write_crops
from tests.unit.pose_fixtures import SCALES, SPEC, draw_people, pose_network

from posequant.base.errors import InputError
from posequant.base.figures import save
from posequant.base.signal import Powers
from posequant.evaluate.bootstrap import Estimate
from posequant.recipe.bias import correct_bias
from posequant.recipe.budget import (
    Budget,
    Ladder,
    Purse,
    best_buys,
    cheapest,
    hold_budget,
    tell_of_chance,
    with_float_layers,
)
from posequant.recipe.draft import Draft, Rung
from posequant.recipe.figure import draw
from posequant.recipe.judge import Judge
from posequant.recipe.keeping import judged
from posequant.recipe.page import render
from posequant.recipe.recipe import apply_recipe, apply_recipe_to_files
from posequant.recipe.score import Draws, Evidence, Score, scores
from posequant.workflow.settings.recipe import CorrectBiasStep, Recipe, Steps, Target

CROPS = list(draw_crops(8))


def new_judge() -> Judge:
    return Judge(SPEC, pose_network(), draw_crops(8, seed=5), draw_people(8), 2)


@pytest.fixture
def judge() -> Judge:
    return new_judge()


@pytest.fixture
def draft(judge: Judge) -> Draft:
    return apply_recipe(SCALES, pose_network(), CROPS, 1, judge)


def test_work_is_that_of_the_drafts_own_float_network(judge: Judge, draft: Draft) -> None:
    macs = {"conv_a": 8 * 27, "convdw_b": 8 * 9, "conv_c": 16 * 8, "conv_d": 17 * 16}
    total = sum(macs.values())
    assert judge.work(draft) == pytest.approx({name: number / total for name, number in macs.items()})
    assert judge.measure(with_float_layers(draft, frozenset({"conv_a"})), "").int8_work == pytest.approx(
        1 - macs["conv_a"] / total
    )
    # As where a step takes the last layer apart.
    rewritten = Builder(draft.reference.layers[:-1], draft.reference.weights[:-1]).convolution(
        "conv_e", "c", "out0", np.ones((17, 16, 3, 3), np.float32)
    )
    work = judge.work(replace(draft, reference=rewritten.model()))
    assert work["conv_e"] == pytest.approx(9 * 17 * 16 / (total + 8 * 17 * 16))
    assert sum(work.values()) == pytest.approx(1)


NOISE = {"little of little": 0.02, "dominating": 0.5, "half": 0.3, "nothing": 0.0}
WORK = {"little of little": 0.0001, "dominating": 0.5, "half": 0.0037, "nothing": 0.0001}


@pytest.mark.parametrize(
    ("purse", "conversion", "expected"),
    [
        pytest.param(Purse(), 0.0, ["little of little", "half", "dominating", "nothing"], id="noise for the work"),
        pytest.param(Purse(most=2), 0.01, ["half", "little of little"], id="work of a conversion counts"),
        pytest.param(Purse(goal=0.3), 0.01, ["half"], id="until it is enough"),
        pytest.param(Purse(goal=0.31), 0.1, ["half", "dominating"], id="what dominates waits for few"),
        pytest.param(Purse(spare=0.1), 0.0, ["little of little", "half", "nothing"], id="what costs too much is left"),
        pytest.param(Purse(spare=0.0), 0.0, [], id="nothing to spend"),
    ],
)
def test_best_buys_by_hand(purse: Purse, conversion: float, expected: list[str]) -> None:
    assert best_buys(NOISE, WORK, conversion, purse) == expected


def test_ladder_grows_up_to_one_layer_in_int8(judge: Judge, draft: Draft) -> None:
    ladder, sets = Ladder(draft, CROPS, 1, judge.work(draft)), [draft.keep_float]
    while rung := ladder.next(with_float_layers(draft, sets[-1])):
        words, kept = rung
        assert sets[-1] < kept
        assert set(words.removesuffix(" in float").split(", ")) == kept - sets[-1]
        sets.append(kept)
    assert len(sets[-1]) == len(draft.names) - 1


def test_ladder_takes_no_more_than_is_too_much(judge: Judge, draft: Draft) -> None:
    rungs = [Ladder(draft, CROPS, 1, judge.work(draft)).next(draft, excess) for excess in (0.0, 1e-6)]
    few, most = (len(rung[1]) for rung in (rungs[1], rungs[0]) if rung)
    assert few == 1 <= most


def test_ladder_leaves_the_least_work_in_int8(judge: Judge, draft: Draft) -> None:
    work = judge.work(draft)
    ladder, kept = Ladder(draft, CROPS, 1, work, 0.6), draft.keep_float
    while rung := ladder.next(with_float_layers(draft, kept)):
        kept = rung[1]
        assert sum(work[name] for name in kept) <= 0.4 + 1e-9
    # Whatever is left is too much.
    left = set(draft.names) - kept
    assert kept
    assert sum(work[name] for name in kept) + min(work[name] for name in left) > 0.4


def hold(limit: float) -> Draft:
    """What a budget makes of the network, judged anew from the start."""
    judge = new_judge()
    draft = apply_recipe(SCALES, pose_network(), CROPS, 1, judge)
    return hold_budget(draft, CROPS, 1, Budget("expected_oks_loss", limit), judge)


def bounds_of(draft: Draft, judge: Judge) -> list[float]:
    """The bounds of all sets of layers that were tried, by the evidence of all."""
    return [score.expected_oks_loss_bound or math.inf for score in judge.scores(draft.rungs)]


def test_budget_that_holds_at_once_keeps_nothing_in_float() -> None:
    held = hold(1)
    assert held.keep_float == frozenset()
    assert len(held.rungs) == 1


def test_set_that_holds_the_budget_is_taken() -> None:
    tried = hold(1e-9)
    bounds = bounds_of(tried, new_judge())
    assert len(bounds) >= 3
    first = bounds.index(min(bounds))
    # Trying its layers in INT8 again adds evidence, by which its own bound grows a little.
    budget = 1.2 * bounds[first]
    held = hold(budget)
    assert held.keep_float <= set(tried.rungs[first].keep_float)
    # What is decided by is the real INT8 network, and the evidence of all.
    again = new_judge().measure(held, "again")
    np.testing.assert_array_equal(held.standing.evidence.oks, again.evidence.oks)
    assert bounds_of(held, new_judge())[held.place] <= budget


def evidence(loss: float, people: int = 10, decibels: float = 20.0) -> Evidence:
    """Of a network by which everybody loses as much."""
    return Evidence([Powers(1.0, 10 ** (-decibels / 10))] * people, np.full(people, 1 - loss))


class ScriptedJudge(Judge):
    """Measures by a function of the layers in float; no network says anything of another."""

    def __init__(self, loss: Callable[[frozenset[str]], float], work: dict[str, float]) -> None:
        self.loss, self.shares, self.people = loss, work, 10

    def work(self, draft: Draft) -> dict[str, float]:
        return self.shares

    def measure(self, draft: Draft, step: str) -> Rung:
        work = 1 - sum(self.shares[name] for name in draft.keep_float)
        return Rung(step, sorted(draft.keep_float), evidence(self.loss(draft.keep_float)), work, 1.0, 1.0)

    def scores(self, rungs: Sequence[Rung]) -> list[Score]:
        return [score for rung in rungs for score in scores([rung.evidence], Draws.of(np.arange(10)))]


EQUAL_WORK = {"conv_a": 0.1, "convdw_b": 0.2, "conv_c": 0.3, "conv_d": 0.4}


def start_of(judge: Judge) -> Draft:
    draft = apply_recipe(SCALES, pose_network(), CROPS, 1)
    return judged(Draft.of(draft.model), draft, "scales", judge)


@pytest.mark.parametrize("needed", ["convdw_b", "conv_c", "conv_d"])
def test_layers_that_the_budget_can_do_without_go_back_to_int8(needed: str) -> None:
    """All but the one that is needed go back, those of most work first."""
    judge = ScriptedJudge(lambda kept: 0.1 if needed in kept else 0.5, EQUAL_WORK)
    held = hold_budget(start_of(judge), CROPS, 1, Budget("expected_oks_loss", 0.2), judge)
    assert held.keep_float == {needed}
    back = [rung.step.removesuffix(" back in INT8") for rung in held.rungs if rung.step.endswith("back in INT8")]
    assert back == sorted(back, key=EQUAL_WORK.__getitem__, reverse=True)
    assert needed not in back[:-1]


def test_of_equal_work_the_fewer_layers_are_taken() -> None:
    work = {"conv_a": 0.1, "convdw_b": 0.1, "conv_c": 0.2, "conv_d": 0.6}
    judge = ScriptedJudge(lambda kept: 0.1, work)
    one, two = frozenset({"conv_c"}), frozenset({"conv_a", "convdw_b"})
    found = {
        kept: judge.scores([judge.measure(replace(start_of(judge), keep_float=kept), "")])[0] for kept in (two, one)
    }
    assert cheapest(found, Budget("expected_oks_loss", 0.2), work) == one


class SlidingJudge(ScriptedJudge):
    """One that thinks better of every network with each that it measures."""

    def scores(self, rungs: Sequence[Rung]) -> list[Score]:
        return [
            replace(score, expected_oks_loss_bound=(score.expected_oks_loss_bound or 0) - 0.05 * len(rungs))
            for score in super().scores(rungs)
        ]


def test_what_is_taken_follows_from_the_scores_of_all() -> None:
    judge = SlidingJudge(lambda kept: 0.5 - 0.08 * len(kept), EQUAL_WORK)
    budget = Budget("expected_oks_loss", 0.18)
    held = hold_budget(start_of(judge), CROPS, 1, budget, judge)
    holding = [rung for rung, score in zip(held.rungs, judge.scores(held.rungs), strict=True) if budget.holds(score)]
    assert holding
    assert held.standing.int8_work == max(rung.int8_work for rung in holding)
    assert held.keep_float == set(held.standing.keep_float)


def test_without_a_limit_of_loss_the_least_noise_is_taken_that_leaves_the_work(
    draft: Draft, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    held = hold_budget(draft, CROPS, 1, Budget("expected_oks_loss", None, 0.6), judge)
    assert held.keep_float
    assert min(rung.int8_work for rung in held.rungs) >= 0.6 - 1e-9
    assert held.standing.sqnr_db == max(rung.sqnr_db or 0 for rung in held.rungs)
    assert "notice" not in capsys.readouterr().err


def test_less_work_in_int8_than_must_be_is_told(draft: Draft, judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    start = judged(Draft.of(draft.model), with_float_layers(draft, frozenset({"conv_a"})), "scales", judge)
    held = hold_budget(start, CROPS, 1, Budget("expected_oks_loss", None, 1.0), judge)
    assert held.keep_float == {"conv_a"}
    assert held.rungs == start.rungs
    assert "less than the 100.0% that must be" in capsys.readouterr().err


def test_limit_that_needs_more_float_than_is_left_is_not_held(
    draft: Draft, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    held = hold_budget(draft, CROPS, 1, Budget("expected_oks_loss", 1e-9, 0.6), judge)
    assert min(rung.int8_work for rung in held.rungs) >= 0.6 - 1e-9
    assert "no set of layers holds the budget of 1e-09 with 60.0% of the work in INT8" in capsys.readouterr().err


@pytest.mark.parametrize("corrected", [False, True])
def test_biases_are_corrected_for_each_set_if_a_step_corrected_them(
    draft: Draft, judge: Judge, corrected: bool
) -> None:
    start = draft
    if corrected:
        start = judged(draft, correct_bias(draft, CROPS, 1, CorrectBiasStep()), "correct-bias", judge, undo=False)
    assert start.biases_corrected == corrected
    held = hold_budget(start, CROPS, 1, Budget("expected_oks_loss", 1e-9), judge)
    assert held.keep_float
    expected = with_float_layers(start, held.keep_float)
    if corrected:
        expected = correct_bias(expected, CROPS, 1, CorrectBiasStep())
    for name in draft.names:
        np.testing.assert_array_equal(held.model.named(name)[1]["bias"], expected.model.named(name)[1]["bias"])


def test_budget_that_nothing_holds_takes_the_best_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    held = hold(1e-9)
    bounds = bounds_of(held, new_judge())
    assert bounds[held.place] == min(bounds)
    again = new_judge().measure(held, "again")
    np.testing.assert_array_equal(held.standing.evidence.oks, again.evidence.oks)
    assert "no set of layers holds the budget of 1e-09" in capsys.readouterr().err


def test_layers_in_float_are_as_the_float_network_has_them(draft: Draft) -> None:
    spoiled = draft.with_weights({"convdw_b": {"weight": draft.model.named("convdw_b")[1]["weight"] * np.float32(0.5)}})
    held = with_float_layers(spoiled, frozenset({"convdw_b"}))
    assert held.keep_float == {"convdw_b"}
    expected = draft.reference.named("convdw_b")[1]["weight"]
    np.testing.assert_array_equal(held.model.named("convdw_b")[1]["weight"], expected)


def test_float_model_grows_by_what_stays_in_float(draft: Draft, judge: Judge) -> None:
    second = judge.measure(with_float_layers(draft, frozenset({"convdw_b"})), "")
    # float16 for INT8 weights, and no scales: 8 of weights, one each of input and (it was requantized) of output.
    assert second.megabytes - draft.standing.megabytes == pytest.approx((8 * 9 * (2 - 1) - 4 * (8 + 1 + 1 + 1)) / 1e6)


def score(**figures: Any) -> Score:
    nothing: dict[str, Any] = dict.fromkeys(Score.__annotations__)
    return Score(**nothing | figures)


def test_chance_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    # The bound is three times as far from the loss as the budget: nine times the people.
    tell_of_chance(Budget("ap_loss", 0.02), score(ap_loss=Estimate(0.01, None, 0), ap_loss_bound=0.04), 50)
    said = capsys.readouterr().err
    assert "50 people are too few to be sure. It takes about 450 to decide: calibrate on 1800" in said
    tell_of_chance(Budget("expected_oks_loss", 0.02), score(expected_oks_loss=0.01, expected_oks_loss_bound=0.02), 50)
    tell_of_chance(Budget("expected_oks_loss", 0.02), score(expected_oks_loss=0.03, expected_oks_loss_bound=0.04), 50)
    assert not capsys.readouterr().err


def test_budget_in_ap_needs_labels(draft: Draft) -> None:
    unlabelled = Judge(SPEC, pose_network(), draw_crops(2, seed=5), draw_people(2), 1, labelled=False)
    (found,) = unlabelled.scores([unlabelled.measure(draft, "")])
    assert found.ap_loss is None
    with pytest.raises(InputError, match="do not tell the ap_loss"):
        Budget("ap_loss", 0.01).holds(found)


def test_budget_is_held_by_the_bound() -> None:
    budget = Budget("expected_oks_loss", 0.01)
    assert budget.holds(score(expected_oks_loss=0.005, expected_oks_loss_bound=0.01))
    assert not budget.holds(score(expected_oks_loss=0.005, expected_oks_loss_bound=0.0101))
    # Too few draws tell it.
    assert not budget.holds(score(expected_oks_loss=0.005))


# Files


def write_network(folder: Path) -> dict[str, Path]:
    """Files of the network and of its people, as `apply_recipe_to_files` takes them."""
    files = {"model": folder / "model.json", "param": folder / "m.param", "bin_": folder / "m.bin"}
    SPEC.save(files["model"])
    pose_network().write(files["param"], files["bin_"])
    write_crops(folder / "crops", np.stack(CROPS))
    draw_people(len(CROPS)).save(folder / "crops")
    return files | {"crops": folder / "crops"}


def apply_to(
    folder: Path,
    files: dict[str, Path],
    recipe: Steps,
    threads: int = 1,
    *,
    target: Target = "any",
    measured: bool = True,
) -> tuple[Any, list[bytes]]:
    """What `apply_recipe_to_files` returns, without times, and the files that it writes."""
    out, table = (folder / "prepared.param", folder / "prepared.bin"), folder / "table"
    reference = folder / "reference.param", folder / "reference.bin"
    record = apply_recipe_to_files(
        recipe,
        model=files["model"],
        param=files["param"],
        bin_=files["bin_"],
        crops=files["crops"],
        threads=threads,
        out=out,
        table=table,
        reference=reference,
        target=target,
        measured=measured,
    )
    for rung in record["rungs"]:
        assert (rung["milliseconds"] is not None) == measured
        rung["milliseconds"] = None
    return record, [path.read_bytes() for path in (*out, table, *reference)]


@pytest.mark.parametrize("budget", [{}, {"oks_loss": 0.001}, {"ap_loss": 0.001}])
def test_recipe_gives_the_same_bytes_with_any_number_of_threads(tmp_path: Path, budget: dict[str, float]) -> None:
    files = write_network(tmp_path)
    recipe: Steps = [*SCALES, {"round": {"seed": 0}}, {"correct-bias": {}}, *([{"budget": budget}] if budget else [])]
    one, three = (apply_to(tmp_path / str(threads), files, recipe, threads) for threads in (1, 3))
    assert one == three
    assert one[0]["recipe"] == Recipe.of(recipe).filled()


def test_each_part_of_the_people_does_its_own(tmp_path: Path) -> None:
    files = write_network(tmp_path)
    recipe: Steps = [*SCALES, {"budget": {"oks_loss": 1}}]
    before, written = apply_to(tmp_path / "before", files, recipe)
    assert before["people"] == {"calibrated": 4, "measured": 2, "telling": 2}
    original = list(CROPS)
    # Each in an image of its own: in turn seen, deciding, seen and telling.
    for name, places in (("deciding", (1, 5)), ("telling", (3, 7)), ("seen", (0, 2, 4, 6))):
        for place, crop in enumerate(original):
            changed = draw_crops(1, seed=9 + place)[0] * 100 if place in places else crop
            np.save(files["crops"] / f"{place:06d}.npy", changed)
        after, rewritten = apply_to(tmp_path / name, files, recipe)
        assert (rewritten == written) == (name != "seen"), name
        assert (after["rungs"] == before["rungs"]) == (name == "telling"), name
        assert (after["outcome"] == before["outcome"]) == (name == "deciding"), name
    # So it is without a budget.
    assert apply_to(tmp_path / "all", files, SCALES)[0]["people"] == before["people"]


def test_draft_does_not_depend_on_what_is_measured_beside_it(tmp_path: Path) -> None:
    files = write_network(tmp_path)
    recipe: Steps = [*SCALES, {"weights": {"bits": 6}}, {"correct-bias": {}}]
    record, written = apply_to(tmp_path / "unmeasured", files, recipe, measured=False)
    assert written == apply_to(tmp_path / "measured", files, recipe)[1]
    assert record["outcome"] is None


@pytest.mark.parametrize(("target", "kept"), [("x86", ["convdw_b"]), ("any", [])])
def test_target_is_recorded_with_what_was_decided(
    target: Target, kept: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe: Steps = [{"keep-float": {"types": ["ConvolutionDepthWise"], "targets": ["x86"]}}, *SCALES]
    record, _ = apply_to(tmp_path, write_network(tmp_path), recipe, target=target, measured=False)
    assert (record["target"], record["keep_float"], record["recipe"]) == (target, kept, Recipe.of(recipe).filled())
    (sentence,) = record["decided"]
    assert f"notice: {sentence}" in capsys.readouterr().err


def test_few_people_are_told_and_too_few_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_network(tmp_path)
    recipe: Steps = [*SCALES, {"budget": {"oks_loss": 1}}]
    with pytest.raises(InputError, match="needs somebody to judge"):
        apply_recipe(recipe, pose_network(), CROPS, 1)
    apply_to(tmp_path / "few", files, recipe)
    assert "2 people decide and 2 tell the outcome" in capsys.readouterr().err
    (files["crops"] / "list.txt").write_text("000000.npy\n000001.npy\n000002.npy\n")
    draw_people(3).save(files["crops"])
    with pytest.raises(InputError, match="people in at least 4 images"):
        apply_to(tmp_path / "out", files, recipe)
    record, _ = apply_to(tmp_path / "out", files, SCALES)
    assert (record["people"], record["outcome"]) == ({"calibrated": 3, "measured": 3, "telling": 0}, None)
    assert "are not split" in capsys.readouterr().err


def test_people_must_be_those_of_the_crops(tmp_path: Path) -> None:
    files = write_network(tmp_path)
    draw_people(3).save(files["crops"])
    with pytest.raises(InputError, match=r"people\.npz: image_ids has the shape \(3,\) for 8 crops"):
        apply_to(tmp_path / "out", files, SCALES)
    assert not (tmp_path / "out").exists()


# Page and picture

RUNGS: list[dict[str, Any]] = [
    {
        "step": step,
        "keep_float": kept,
        "oks_loss": {"value": loss + 0.001, "interval": (loss - 0.003, loss + 0.005), "left_out": 0},
        "expected_oks_loss": loss,
        "expected_oks_loss_bound": loss + 0.002,
        "ap_loss": {"value": 0.002, "interval": (-0.001, 0.004), "left_out": 0},
        "ap_loss_bound": 0.003,
        "sqnr_db": 20.04,
        "int8_work": 0.987 - 0.1 * len(kept),
        "megabytes": 1.5,
        "milliseconds": milliseconds,
        "undone": undone,
    }
    for step, kept, loss, milliseconds, undone in (
        ("weights (8)", [], 0.02, 4.0, False),
        ("round", [], 0.03, 4.0, True),
        ("conv_b, conv_c in float", ["conv_b", "conv_c"], 0.006, 6.0, False),
        ("conv_b back in INT8", ["conv_c"], 0.007, 5.0, False),
        ("conv_c back in INT8", ["conv_b"], 0.009, 5.5, False),
    )
]
RECORD: dict[str, Any] = {
    "model": "net",
    "judged_by": "OKS",
    "recipe": [*SCALES, {"round": {}}, {"budget": {"oks_loss": 0.01}}],
    "target": "any",
    "decided": ["weights: 8 bits."],
    "keep_float": ["conv_c"],
    "people": {"calibrated": 64, "measured": 60, "telling": 70},
    "rungs": RUNGS,
    "taken": 3,
    "outcome": {
        "oks_loss": {"value": 0.0081, "interval": (0.0062, 0.0119), "left_out": 0},
        "ap_loss": {"value": 0.001, "interval": None, "left_out": 0},
    },
}


WITHOUT_BUDGET = {**RECORD, "recipe": RECORD["recipe"][:2], "rungs": RUNGS[:1], "taken": 0}
ALL_SEEN = {**WITHOUT_BUDGET, "people": {"calibrated": 3, "measured": 3, "telling": 0}, "outcome": None}


def page_of(record: dict[str, Any]) -> str:
    return render(record, {"recipe.svg": draw(record)})


def lines_of(page: str) -> list[list[str]]:
    """The cells of all lines of all tables."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]


def test_page_of_keypoints_without_sigmas_speaks_of_their_measures() -> None:
    page = page_of({**RECORD, "judged_by": "NME"})
    assert "## What holds the budget of 0.01 of expected NME" in page
    assert "- **NME**: normalised mean error to the poses of the float network." in page
    assert "- **PCK**: of these people" in page
    assert not re.search(r"\bAP\b|OKS", page)


def test_page_tells_what_held_the_budget() -> None:
    page = page_of(RECORD)
    assert "In float: conv_c. Calibrated on 64 people." in page
    assert "(recipe.svg)" in page
    assert "Target: `any`. weights: 8 bits." in page
    assert "Line 3 holds it and was taken: 1 layers in float, 88.7% of the work in INT8" in page
    assert [line for line in lines_of(page) if line[0] in ("Expected", "At most, at 95%", "Budget")] == [
        ["Expected", "0.0070", "60, who decided"],
        ["At most, at 95%", "0.0090", "60, who decided"],
        ["Budget", "0.01", ""],
    ]
    assert ["Outcome, 95% interval", "0.0081 [0.0062, 0.0119]", "70, who only tell"] in lines_of(page)
    assert "**60 people are few.**" in page
    cells = {line[0]: line[1:] for line in lines_of(page) if line[0].isdigit()}
    assert cells["0"] == [
        "weights (8)",
        "0",
        "0.0210",
        "0.0200",
        "0.0220",
        "-0.0020 [-0.0040, +0.0010]",
        "20.0 dB",
        "98.7%",
        "1.50 MB",
        "4.00 ms",
        "1.00x",
        "",
    ]
    verdicts = [cells[number][-1] for number in "1234"]
    # The last is expected to hold it, and its bound does not.
    assert verdicts == ["undone", "holds the budget", "**taken**, holds the budget", ""]
    assert cells["3"][-2] == "1.25x"


def test_page_of_a_budget_in_ap_tells_bounds_and_outcome_in_ap() -> None:
    record = {
        **RECORD,
        "recipe": [*SCALES, {"budget": {"ap_loss": 0.003}}],
        "people": RECORD["people"] | {"measured": 64},
    }
    page = page_of(record)
    assert ["Outcome, 95% interval", "0.0010", "70, who only tell"] in lines_of(page)
    assert ["At most, at 95%", "0.0030", "64, who decided"] in lines_of(page)
    assert "few" not in page


def test_page_tells_of_draws_without_anybody() -> None:
    silent = {**RUNGS[0], "ap_loss": {**RUNGS[0]["ap_loss"], "left_out": 7}}
    assert "7 of the 1000 draws have nobody to find" in page_of({**RECORD, "rungs": [silent, *RUNGS[1:]]})
    assert "nobody to find" not in page_of(RECORD)


def test_page_tells_that_nothing_held_the_budget() -> None:
    page = page_of({**RECORD, "rungs": RUNGS[:1], "taken": 0})
    assert "**No line holds it.**" in page


def test_page_without_a_budget_tells_what_each_step_bought() -> None:
    page = page_of(WITHOUT_BUDGET)
    assert "## What each step buys" in page
    assert "budget" not in page
    assert "on 70 people by whom nothing was chosen, with its 95% interval: 0.0081 [0.0062, 0.0119]" in page
    assert "60 calibration people that no step saw" in page


def test_page_tells_that_nobody_was_left_to_tell() -> None:
    page = page_of(ALL_SEEN)
    assert "nothing was chosen" not in page
    assert "3 calibration people that the steps saw, so the figures look better than they are" in page


def test_page_of_a_budget_of_work_has_no_limit_of_loss() -> None:
    page = page_of({**RECORD, "recipe": [*SCALES, {"budget": {"int8_work": 0.9}}]})
    assert "## What each step buys" in page
    assert "Line 3 was taken: 1 layers in float, 88.7% of the work in INT8" in page
    assert "holds" not in page


def test_picture_shows_what_was_measured() -> None:
    drawing = draw(RECORD)
    assert drawing.caption
    latency, size = drawing.figure.axes
    points = {
        str(marks.get_label()): np.asarray(marks.get_offsets()).tolist()
        for marks in latency.collections
        if marks.get_label() in ("tried", "undone", "taken")
    }
    assert points == {
        "tried": [[1, 0.02], [1.5, 0.006], [1.375, 0.009]],
        "undone": [[1, 0.03]],
        "taken": [[1.25, 0.007]],
    }
    assert [text.get_text() for text in size.texts] == ["0", "1", "2", "3", "4"]


def test_lines_at_one_point_share_its_number() -> None:
    drawing = draw({**RECORD, "rungs": [RUNGS[0], RUNGS[0], *RUNGS[2:]]})
    assert [text.get_text() for text in drawing.figure.axes[0].texts] == ["0, 1", "2", "3", "4"]


def test_points_of_unknown_loss_are_left_out(tmp_path: Path) -> None:
    unknown = dict.fromkeys(("oks_loss", "expected_oks_loss", "expected_oks_loss_bound"))
    drawing = draw({**WITHOUT_BUDGET, "rungs": [{**RUNGS[0], **unknown}]})
    assert not drawing.figure.axes[0].texts
    save(drawing.figure, tmp_path / "one.svg")
    ElementTree.fromstring((tmp_path / "one.svg").read_bytes())
