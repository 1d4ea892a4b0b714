"""What a recipe did, as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posequant.base.figures import Drawing
from posequant.base.markdown import decibels, figure_or_dash, signed, table
from posequant.base.measures import measure_in
from posequant.recipe.budget import Budget
from posequant.recipe.parts import MIN_PEOPLE
from posequant.recipe.recipe import budget_of
from posequant.recipe.score import RESAMPLES

TITLES = {"expected_oks_loss": "expected OKS loss", "ap_loss": "AP loss"}
_BOUNDS = {"expected_oks_loss": "expected_oks_loss_bound", "ap_loss": "ap_loss_bound"}
_OUTCOMES = {"expected_oks_loss": "oks_loss", "ap_loss": "ap_loss"}


def render(record: Mapping[str, Any], pictures: Mapping[str, Drawing]) -> str:
    """Return the page of a recipe's record.

    Args:
        record: as `apply_recipe_to_files` makes it.
        pictures: those of it, by the links to their files.
    """
    return measure_in(record).said("\n\n".join(_paragraphs(record, pictures)) + "\n")


def _paragraphs(record: Mapping[str, Any], pictures: Mapping[str, Drawing]) -> Iterable[str]:
    recipe, rungs, people, last = record["recipe"], record["rungs"], record["people"], record["taken"]
    budget = budget_of(recipe)
    yield "# Recipe"
    yield table(
        {"Step": name, "Settings": ", ".join(f"{key}: {value}" for key, value in settings.items()) or "-"}
        for step in recipe
        for name, settings in step.items()
    )
    kept = record["keep_float"]
    yield f"In float: {', '.join(kept) if kept else 'no layer'}. Calibrated on {people['calibrated']} people."
    yield f"Target: `{record['target']}`." + "".join(f" {sentence}" for sentence in record["decided"])
    if budget and budget.limit is not None:
        yield f"## What holds the budget of {budget.limit:g} of {TITLES[budget.measure]}"
        yield _conclusion(budget, rungs, last)
        yield table(_held(budget, rungs[last], people, record["outcome"]))
        yield (
            "Expected and bound are those of the people that decided. They may flatter this network, which was chosen "
            "by them. The outcome is that of people by whom nothing was chosen. No two parts share an image."
        )
        if (fewest := min(people["measured"], people["telling"])) < MIN_PEOPLE:
            yield (
                f"**{fewest} people are few.** With fewer than {MIN_PEOPLE} a bound at 95% holds less often than it "
                f"says: calibrate on {4 * MIN_PEOPLE} people or more."
            )
    else:
        yield "## What each step buys"
        yield f"Line {last} was taken: {_price(rungs, last)}."
        if found := record["outcome"]:
            yield (
                f"OKS loss of the network that was taken, on {people['telling']} people by whom nothing was chosen, "
                f"with its 95% interval: {stated_loss(found['oks_loss'])}."
            )
    title = TITLES[budget.measure if budget else "expected_oks_loss"]
    for link, drawing in pictures.items():
        yield f"![{drawing.title}]({link})"
        yield drawing.caption
    yield table(_line(number, rung, rungs, last, budget) for number, rung in enumerate(rungs))
    seen = "that no step saw" if people["telling"] else "that the steps saw, so the figures look better than they are"
    yield (
        f"Measured on the real INT8 network, on {people['measured']} calibration people {seen}. A step that makes the "
        "outputs of these worse, by SQNR, is undone."
    )
    yield "\n".join(
        (
            "- **OKS loss**: 1 - mean OKS to the poses of the float network. It needs no labels.",
            "- **Expected**: the same on other people. It is the noise of the outputs times the ratio of loss to noise "
            "of all lines together, so less of it is chance.",
            f"- **At most**: the one-sided upper bound of the {title} at 95%, by a bootstrap over the images.",
            "- **AP**: of these people, each in an image of its own, as a difference to the float network. In "
            "brackets, its 95% interval by a paired bootstrap.",
            "- **SQNR**: of the network's outputs.",
            "- **Work in INT8**: share of the float network's multiply-accumulates, of all layers with weights.",
            "- **Latency**: one crop on one thread, timed in turn with the first line.",
        )
    )
    if silent := max((rung["ap_loss"]["left_out"] for rung in rungs if rung["ap_loss"]), default=0):
        yield f"{silent} of the {RESAMPLES} draws have nobody to find; the intervals of AP are those of the others."


def loss_of(rung: Mapping[str, Any], measure: str) -> float | None:
    """Return what a rung of a record loses by a budget's `measure`."""
    loss: float | Mapping[str, float] | None = rung[measure]
    return loss["value"] if isinstance(loss, Mapping) else loss


def bound_of(rung: Mapping[str, Any], measure: str) -> float | None:
    """Return the upper bound of that."""
    bound: float | None = rung[_BOUNDS[measure]]
    return bound


def outcome_of(record: Mapping[str, Any], measure: str) -> Mapping[str, Any] | None:
    """Return what the network that was taken loses of the people that only tell, with its interval."""
    outcome: Mapping[str, Any] | None = record["outcome"] and record["outcome"][_OUTCOMES[measure]]
    return outcome


def _price(rungs: Sequence[Mapping[str, Any]], last: int) -> str:
    rung = rungs[last]
    return (
        f"{len(rung['keep_float'])} layers in float, {rung['int8_work']:.1%} of the work in INT8, "
        f"{rung['megabytes']:.2f} MB of weights and {rung['milliseconds'] / rungs[0]['milliseconds']:.2f} of the first "
        "line's latency"
    )


def _conclusion(budget: Budget, rungs: Sequence[Mapping[str, Any]], last: int) -> str:
    if _holds(rungs[last], budget):
        return f"Line {last} holds it and was taken: {_price(rungs, last)}."
    return f"**No line holds it.** The one with the least bound was taken, line {last}: {_price(rungs, last)}."


def _held(
    budget: Budget, rung: Mapping[str, Any], people: Mapping[str, int], outcome: Mapping[str, Any]
) -> Iterable[dict[str, str]]:
    title = TITLES[budget.measure].removeprefix("expected ")
    found = outcome[_OUTCOMES[budget.measure]]
    deciding = f"{people['measured']}, who decided"
    for what, value, whose in (
        ("Expected", figure_or_dash(loss_of(rung, budget.measure)), deciding),
        ("At most, at 95%", figure_or_dash(bound_of(rung, budget.measure)), deciding),
        ("Budget", f"{budget.limit:g}", ""),
        ("Outcome, 95% interval", stated_loss(found), f"{people['telling']}, who only tell"),
    ):
        yield {title[0].upper() + title[1:]: what, " ": value, "People": whose}


def stated_loss(loss: Mapping[str, Any] | None) -> str:
    """Return a loss and its interval, such as `0.0091 [0.0062, 0.0125]`."""
    if loss is None:
        return "-"
    return figure_or_dash(loss["value"]) + (" [{:.4f}, {:.4f}]".format(*loss["interval"]) if loss["interval"] else "")


def _line(
    number: int, rung: Mapping[str, Any], rungs: Sequence[Mapping[str, Any]], last: int, budget: Budget | None
) -> dict[str, str]:
    loss = rung["ap_loss"]
    between = loss and loss["interval"]
    return {
        "Line": str(number),
        "Step": rung["step"],
        "Layers in float": str(len(rung["keep_float"])),
        "OKS loss": figure_or_dash(rung["oks_loss"] and rung["oks_loss"]["value"]),
        "Expected": figure_or_dash(rung["expected_oks_loss"]),
        "At most": figure_or_dash(bound_of(rung, budget.measure if budget else "expected_oks_loss")),
        "AP": (signed(-loss["value"]) if loss else "-")
        + (f" [{signed(-between[1])}, {signed(-between[0])}]" if between else ""),
        "SQNR": decibels(rung["sqnr_db"]),
        "Work in INT8": f"{rung['int8_work']:.1%}",
        "Weights": f"{rung['megabytes']:.2f} MB",
        "Latency": f"{rung['milliseconds']:.2f} ms",
        "Against the first": f"{rung['milliseconds'] / rungs[0]['milliseconds']:.2f}x",
        "Verdict": _verdict(number, rung, last, budget),
    }


def _holds(rung: Mapping[str, Any], budget: Budget) -> bool:
    bound = bound_of(rung, budget.measure)
    return bound is not None and budget.limit is not None and bound <= budget.limit


def _verdict(number: int, rung: Mapping[str, Any], last: int, budget: Budget | None) -> str:
    words = ["**taken**"] if number == last else []
    words += ["undone"] if rung["undone"] else []
    words += ["holds the budget"] if budget and _holds(rung, budget) else []
    return ", ".join(words)
