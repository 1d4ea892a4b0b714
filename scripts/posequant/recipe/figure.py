"""What was measured on the way of a recipe as a picture: loss against latency and size, and what no other beats."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posequant.base import figures
from posequant.base.figures import Drawing
from posequant.base.measures import measure_in
from posequant.base.pareto import pareto_front
from posequant.recipe.page import TITLES, bound_of, loss_of, outcome_of
from posequant.recipe.recipe import budget_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colour and shape of a network that was tried.
_MARKS = {
    "tried": (figures.BLUE, "o"),
    "undone": (figures.GREY, "X"),
    "taken": (figures.GREEN, "s"),
}


def draw(record: Mapping[str, Any]) -> Drawing:
    """Return the picture of a recipe's record, as `apply_recipe_to_files` makes it."""
    with figures.style():
        return _draw(record)


def _draw(record: Mapping[str, Any]) -> Drawing:
    budget, rungs = budget_of(record["recipe"]), record["rungs"]
    measure = budget.measure if budget else "expected_oks_loss"
    limited = budget if budget and budget.limit is not None else None
    losses = [_known(loss_of(rung, measure)) for rung in rungs]
    bounds = [_known(bound_of(rung, measure)) for rung in rungs]
    first = rungs[0]["milliseconds"]
    figure = figures.new_figure(4.2)
    panels = figure.subplots(1, 2, sharey=True)
    prices = ([rung["milliseconds"] / first for rung in rungs], [rung["megabytes"] for rung in rungs])
    for panel, price, label in zip(panels, prices, ("latency, line 0 = 1", "weights, MB"), strict=True):
        if limited:
            # From what is expected to the bound that must hold the budget.
            colours = [_MARKS[_kind(record, place)][0] for place in range(len(rungs))]
            panel.vlines(price, losses, bounds, color=colours, linewidth=1.2, zorder=1)
            panel.axhline(limited.limit, color=figures.BLACK, linestyle="--", linewidth=1.1, label="budget")
        _draw_panel(panel, price, losses, record)
        panel.set(xlabel=label)
        if outcome := outcome_of(record, measure):
            _draw_outcome(panel, price[record["taken"]], outcome)
    title = measure_in(record).said(TITLES[measure])
    panels[0].set(ylabel=title, title=record["model"])
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    caption = (
        f"Each mark is a network that was tried, with its line in the table below. Further down loses less "
        f"({title}); further left is faster in the one panel, smaller in the other. The stepped line joins "
        "those that no other beats in both."
    )
    if limited:
        caption += (
            " The line above a mark ends at the upper bound, which must be below the dashed line, the budget. The "
            "outcome is that of people by whom nothing was chosen."
        )
    return Drawing("recipe", "Loss against latency and size, step by step", caption, figure)


def _known(loss: float | None) -> float:
    return math.nan if loss is None else loss


def _kind(record: Mapping[str, Any], place: int) -> str:
    if place == record["taken"]:
        return "taken"
    return "undone" if record["rungs"][place]["undone"] else "tried"


def _draw_outcome(panel: "Axes", price: float, outcome: Mapping[str, Any]) -> None:
    value, between = outcome["value"], outcome["interval"] or (outcome["value"], outcome["value"])
    errors = [[max(value - between[0], 0)], [max(between[1] - value, 0)]]
    panel.errorbar(
        [price], [value], yerr=errors, fmt="D", color=figures.VERMILION, capsize=3, label="outcome", zorder=3
    )


def _draw_panel(panel: "Axes", prices: Sequence[float], losses: Sequence[float], record: Mapping[str, Any]) -> None:
    rungs, front = record["rungs"], pareto_front(prices, losses)
    ends = [prices[place] for place in front], [losses[place] for place in front]
    panel.step(*ends, where="post", color="#777777", linestyle=":", label="Pareto front", zorder=1)
    for kind, (colour, marker) in _MARKS.items():
        if places := [place for place in range(len(rungs)) if _kind(record, place) == kind]:
            points = [prices[place] for place in places], [losses[place] for place in places]
            panel.scatter(*points, color=colour, marker=marker, label=kind, zorder=2)
    # Lines of one mark share its label: latencies differ by chance, and less than a mark is wide.
    at: dict[tuple[float, float], list[int]] = {}
    for place, (price, loss) in enumerate(zip(prices, losses, strict=True)):
        if not math.isnan(loss):
            at.setdefault((round(price, 2), loss), []).append(place)
    for (_, loss), here in at.items():
        label = ", ".join(map(str, here))
        panel.annotate(label, (prices[here[0]], loss), (6, 4), textcoords="offset points", fontsize=9)
    panel.margins(0.1)
    # Of a fifth of the prices at least: differences that are chance look like what they are.
    low, high = panel.get_xlim()
    room = max(0.0, 0.2 * max(prices) - (high - low)) / 2
    panel.set_xlim(low - room, high + room)
    panel.locator_params(axis="x", nbins=5)
