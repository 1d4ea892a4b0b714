"""Recipes that are measured on their way, and layers in float for a budget: what is tried, what decides."""

import itertools
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import INPUT_SHAPE, draw_crops, write_crops
from tests.unit.pose_fixtures import SCALES, SPEC, draw_people, pose_network

from posequant.base.errors import InputError
from posequant.base.figures import save
from posequant.base.signal import Powers
from posequant.evaluate.bootstrap import Estimate
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize
from posequant.recipe.bias import correct_bias
from posequant.recipe.budget import Budget, hold_budget, judged, ladder, tell_of_chance, with_float_layers
from posequant.recipe.draft import Draft, Rung
from posequant.recipe.figure import draw
from posequant.recipe.judge import Judge
from posequant.recipe.output_error import errors_alone
from posequant.recipe.page import render
from posequant.recipe.recipe import apply_recipe, apply_recipe_to_files
from posequant.recipe.score import Draws, Evidence, Score, scores
from posequant.workflow.settings.recipe import CorrectBiasStep, Recipe, Steps

CROPS = list(draw_crops(8))


def new_judge() -> Judge:
    return Judge(SPEC, pose_network(), draw_crops(8, seed=5), draw_people(8), 2)


@pytest.fixture
def judge() -> Judge:
    return new_judge()


@pytest.fixture
def draft(judge: Judge) -> Draft:
    return apply_recipe(SCALES, pose_network(), CROPS, 1, judge)


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
    assert [len(kept) for _, kept in rungs] == [1, 2, 3]
    assert rungs[0] == ("1 depthwise layers in float", frozenset({"convdw_b"}))
    for (_, fewer), (_, more) in itertools.pairwise(rungs):
        assert fewer < more


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
    assert len(bounds) == 4
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
    """Measures by a list of losses, one for each set of layers in float, each of which says nothing of the others."""

    def __init__(self, losses: dict[frozenset[str], float], macs: dict[str, int]) -> None:
        self.losses, self.macs, self.people = losses, macs, 10

    def measure(self, draft: Draft, step: str) -> Rung:
        return Rung(step, sorted(draft.keep_float), evidence(self.losses[draft.keep_float]), 1.0, 1.0)

    def scores(self, rungs: Sequence[Rung]) -> list[Score]:
        return [score for rung in rungs for score in scores([rung.evidence], Draws.of(np.arange(10)))]


def test_layers_that_the_budget_can_do_without_go_back_to_int8() -> None:
    draft = apply_recipe(SCALES, pose_network(), CROPS, 1)
    first, second = [kept - {"convdw_b"} for _, kept in ladder(draft, CROPS, 1)][1:]
    (worst,), (other,) = first, second - first
    depthwise = frozenset({"convdw_b"})
    losses = {
        frozenset[str](): 0.5,
        depthwise: 0.4,
        depthwise | {worst}: 0.3,
        depthwise | {worst, other}: 0.1,
        # The worst layer alone is not needed beside the other; without both the budget breaks.
        depthwise | {other}: 0.15,
    }
    judge = ScriptedJudge(losses, {worst: 10, other: 20, "convdw_b": 30})
    start = judged(Draft.of(draft.model), draft, "scales", judge, undo=False)
    held = hold_budget(start, CROPS, 1, Budget("expected_oks_loss", 0.2), judge)
    assert held.keep_float == depthwise | {other}
    # The other has more work, and so it is tried first; but that set is known to break the budget.
    assert [rung.step for rung in held.rungs] == [
        "scales",
        "1 depthwise layers in float",
        f"{worst} in float",
        f"{other} in float",
        f"{worst} back in INT8",
    ]
    assert held.standing.step == f"{worst} back in INT8"
    judge.losses[depthwise | {other}] = 0.25
    held = hold_budget(start, CROPS, 1, Budget("expected_oks_loss", 0.2), judge)
    assert held.keep_float == depthwise | {worst, other}
    assert held.standing.step == f"{other} in float"


class SlidingJudge(ScriptedJudge):
    """One that thinks better of every network with each that it measures."""

    def scores(self, rungs: Sequence[Rung]) -> list[Score]:
        return [
            replace(score, expected_oks_loss_bound=(score.expected_oks_loss_bound or 0) - 0.05 * len(rungs))
            for score in super().scores(rungs)
        ]


def test_what_is_taken_follows_from_the_scores_of_all() -> None:
    draft = apply_recipe(SCALES, pose_network(), CROPS, 1)
    first, second = [kept - {"convdw_b"} for _, kept in ladder(draft, CROPS, 1)][1:]
    (worst,), (other,) = first, second - first
    depthwise = frozenset({"convdw_b"})
    losses = {frozenset[str](): 0.5, depthwise: 0.4, depthwise | {worst}: 0.34, depthwise | {worst, other}: 0.3}
    judge = SlidingJudge(losses, {worst: 10, other: 20, "convdw_b": 30})
    start = judged(Draft.of(draft.model), draft, "scales", judge, undo=False)
    # With two measured the depthwise layers' bound is 0.3, with three 0.25, and with four 0.2: then they hold.
    budget = Budget("expected_oks_loss", 0.18)
    held = hold_budget(start, CROPS, 1, budget, judge)
    cheapest = min((rung for rung, score in zip(held.rungs, judge.scores(held.rungs), strict=True)
                    if budget.holds(score)), key=lambda rung: len(rung.keep_float))  # fmt: skip
    assert held.standing is cheapest
    assert held.keep_float == set(cheapest.keep_float)


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


def test_float_model_grows_by_what_stays_in_float() -> None:
    first, second, *_ = hold(1e-9).rungs
    # float16 for INT8 weights, and no scales: 8 of weights, one each of input and (it was requantized) of output.
    assert second.megabytes - first.megabytes == pytest.approx((8 * 9 * (2 - 1) - 4 * (8 + 1 + 1 + 1)) / 1e6)


def test_step_that_makes_the_outputs_worse_is_undone(
    draft: Draft, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = replace(draft, activation_scales={name: scale * 8 for name, scale in draft.activation_scales.items()})
    kept = judged(draft, worse, "narrow ranges", judge, undo=True)
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


def apply_to(folder: Path, files: dict[str, Path], recipe: Steps, threads: int = 1) -> tuple[Any, list[bytes]]:
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
    )
    for rung in record["rungs"]:
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
    # Without a budget all are seen.
    assert apply_to(tmp_path / "all", files, SCALES)[0]["people"] == {"calibrated": 8, "measured": 8, "telling": 0}


def test_few_people_are_told_and_too_few_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_network(tmp_path)
    recipe: Steps = [*SCALES, {"budget": {"oks_loss": 1}}]
    with pytest.raises(InputError, match="needs somebody to judge"):
        apply_recipe(recipe, pose_network(), CROPS, 1)
    apply_to(tmp_path / "few", files, recipe)
    assert "2 people decide and 2 tell the outcome" in capsys.readouterr().err
    (files["crops"] / "list.txt").write_text("000000.npy\n000001.npy\n000002.npy\n")
    draw_people(3).save(files["crops"])
    with pytest.raises(InputError, match=r"people in at least 4 images.*; there are 3"):
        apply_to(tmp_path / "out", files, recipe)


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
    "recipe": [*SCALES, {"round": {}}, {"budget": {"oks_loss": 0.01}}],
    "keep_float": ["conv_c"],
    "people": {"calibrated": 64, "measured": 60, "telling": 70},
    "rungs": RUNGS,
    "taken": 3,
    "outcome": {
        "oks_loss": {"value": 0.0081, "interval": (0.0062, 0.0119), "left_out": 0},
        "ap_loss": {"value": 0.001, "interval": None, "left_out": 0},
    },
}


WITHOUT_BUDGET = {**RECORD, "recipe": RECORD["recipe"][:2], "rungs": RUNGS[:1], "taken": 0, "outcome": None}


def page_of(record: dict[str, Any]) -> str:
    return render(record, {"recipe.svg": draw(record)})


def lines_of(page: str) -> list[list[str]]:
    """The cells of all lines of all tables."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]


def test_page_tells_what_held_the_budget() -> None:
    page = page_of(RECORD)
    assert "In float: conv_c. Calibrated on 64 people." in page
    assert "(recipe.svg)" in page
    assert "Line 3 holds it and was taken: 1 layers in float" in page
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
