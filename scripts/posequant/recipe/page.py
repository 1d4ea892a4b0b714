"""What a recipe did, as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posequant.base.markdown import decibels, signed, table
from posequant.recipe.budget import Budget
from posequant.recipe.recipe import budget_of


def render(record: Mapping[str, Any], figure: str) -> str:
    """Return the page of a recipe's record.

    Args:
        record: as `apply_recipe_to_files` makes it.
        figure: link to its picture, relative to the page.
    """
    return "\n\n".join(_paragraphs(record, figure)) + "\n"


def taken(rungs: Sequence[Mapping[str, Any]]) -> int:
    """Return the place of the rung that the recipe ended with: the last that was not undone."""
    return max(place for place, rung in enumerate(rungs) if not rung["undone"])


def _paragraphs(record: Mapping[str, Any], figure: str) -> Iterable[str]:
    recipe, rungs, crops = record["recipe"], record["rungs"], record["crops"]
    budget, last = budget_of(recipe), taken(rungs)
    yield "# Recipe"
    yield table(
        {"Step": name, "Settings": ", ".join(f"{key}: {value}" for key, value in settings.items()) or "-"}
        for step in recipe
        for name, settings in step.items()
    )
    kept = record["keep_float"]
    yield f"In float: {', '.join(kept) if kept else 'no layer'}. Calibrated on {crops['calibrated']} crops."
    if budget:
        yield f"## What holds the budget of {budget.limit:g} of {TITLES[budget.measure]}"
        yield _conclusion(budget, rungs, last)
    else:
        yield "## What each step buys"
    yield f"![Loss against latency and size, stage by stage]({figure})"
    yield table(_line(number, rung, rungs, last, budget) for number, rung in enumerate(rungs))
    yield (
        f"Measured by the real INT8 network on {crops['measured']} calibration people"
        + (
            ", the half that no other step saw"
            if budget
            else ", those that the steps saw, so it looks better than it is"
        )
        + ". OKS loss: 1 - mean OKS with the float network's poses as the truth, which needs no labels. Expected: the "
        "same on other people, by the noise of the outputs and by what all lines up to this one say of noise and loss; "
        "it has less of chance. AP: of these "
        "people, each in an image of its own, as a difference to the float network, in brackets its 95% interval by a "
        "paired bootstrap. SQNR: of the network's outputs. Latency: one crop on one thread, timed in turn with the "
        "first line."
    )


TITLES = {"expected_oks_loss": "expected OKS loss", "ap_loss": "AP loss"}


def _conclusion(budget: Budget, rungs: Sequence[Mapping[str, Any]], last: int) -> str:
    rung = rungs[last]
    price = (
        f"{rung[budget.measure]:.4f}, with {len(rung['keep_float'])} layers in float, {rung['megabytes']:.2f} MB of "
        f"weights and {rung['milliseconds'] / rungs[0]['milliseconds']:.2f} of the first line's latency"
    )
    if rung[budget.measure] <= budget.limit:
        return f"Line {last} holds it and was taken: {price}."
    return f"**No line holds it.** The one with the least loss was taken, line {last}: {price}."


def _line(
    number: int, rung: Mapping[str, Any], rungs: Sequence[Mapping[str, Any]], last: int, budget: Budget | None
) -> dict[str, str]:
    between = rung["ap_loss_interval"]
    return {
        "Line": str(number),
        "Step": rung["step"],
        "Layers in float": str(len(rung["keep_float"])),
        "OKS loss": _four(rung["oks_loss"]),
        "Expected": _four(rung["expected_oks_loss"]),
        "AP": (signed(-rung["ap_loss"]) if rung["ap_loss"] is not None else "-")
        + (f" [{signed(-between[1])}, {signed(-between[0])}]" if between else ""),
        "SQNR": decibels(rung["sqnr_db"]),
        "Weights": f"{rung['megabytes']:.2f} MB",
        "Latency": f"{rung['milliseconds']:.2f} ms",
        "Against the first": f"{rung['milliseconds'] / rungs[0]['milliseconds']:.2f}x",
        "Verdict": _verdict(number, rung, last, budget),
    }


def _four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _verdict(number: int, rung: Mapping[str, Any], last: int, budget: Budget | None) -> str:
    words = ["**taken**"] if number == last else []
    words += ["undone"] if rung["undone"] else []
    if budget:
        words += ["holds the budget"] if rung[budget.measure] <= budget.limit else []
    return ", ".join(words)
