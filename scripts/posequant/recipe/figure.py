"""What was measured on the way of a recipe as a picture: loss against latency and size, and what no other beats."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.pareto import pareto_front
from posequant.base.svg import save_svg
from posequant.recipe.page import TITLES, bound_of, loss_of, outcome_of
from posequant.recipe.recipe import budget_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRIED, UNDONE, TAKEN, FRONT, LIMIT, OUTCOME = "#4477aa", "#bbbbbb", "#228833", "#ccbb44", "#ee6677", "#aa3377"


def draw(record: Mapping[str, Any], target: Path) -> None:
    """Write an SVG of a recipe's record.

    Args:
        record: as `apply_recipe_to_files` makes it.
        target: the file to write; equal records give equal bytes.
    """
    from matplotlib.figure import Figure

    budget, rungs = budget_of(record["recipe"]), record["rungs"]
    measure = budget.measure if budget else "expected_oks_loss"
    losses = [_known(loss_of(rung, measure)) for rung in rungs]
    bounds = [_known(bound_of(rung, measure)) for rung in rungs]
    first = rungs[0]["milliseconds"]
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    prices = ([rung["milliseconds"] / first for rung in rungs], [rung["megabytes"] for rung in rungs])
    for panel, price, label in zip(panels, prices, ("latency against line 0", "MB of weights"), strict=True):
        if budget:
            # From what is expected to the bound that must hold the budget.
            panel.vlines(price, losses, bounds, color=[_colour(record, place) for place in range(len(rungs))], zorder=1)
            panel.axhline(budget.limit, color=LIMIT, linestyle="--", linewidth=1, label="budget")
        _draw_panel(panel, price, losses, record)
        panel.set(xlabel=label)
        if outcome := outcome_of(record, measure):
            _draw_outcome(panel, price[record["taken"]], outcome)
    panels[0].set(ylabel=TITLES[measure], title=record["model"])
    panels[1].legend(frameon=False)
    save_svg(figure, target)


def _known(loss: float | None) -> float:
    return math.nan if loss is None else loss


def _colour(record: Mapping[str, Any], place: int) -> str:
    if place == record["taken"]:
        return TAKEN
    return UNDONE if record["rungs"][place]["undone"] else TRIED


def _draw_outcome(panel: "Axes", price: float, outcome: Mapping[str, Any]) -> None:
    value, between = outcome["value"], outcome["interval"] or (outcome["value"], outcome["value"])
    errors = [[max(value - between[0], 0)], [max(between[1] - value, 0)]]
    panel.errorbar([price], [value], yerr=errors, fmt="D", color=OUTCOME, capsize=3, label="outcome", zorder=3)


def _draw_panel(panel: "Axes", prices: Sequence[float], losses: Sequence[float], record: Mapping[str, Any]) -> None:
    rungs, front = record["rungs"], pareto_front(prices, losses)
    ends = [prices[place] for place in front], [losses[place] for place in front]
    panel.step(*ends, where="post", color=FRONT, label="Pareto front", zorder=1)
    for title, colour in (("tried", TRIED), ("undone", UNDONE), ("taken", TAKEN)):
        if places := [place for place in range(len(rungs)) if _colour(record, place) == colour]:
            points = [prices[place] for place in places], [losses[place] for place in places]
            panel.scatter(*points, color=colour, label=title, zorder=2)
    for place, (price, loss) in enumerate(zip(prices, losses, strict=True)):
        if not math.isnan(loss):
            panel.annotate(str(place), (price, loss), (4, 4), textcoords="offset points", fontsize=8)
    panel.grid(alpha=0.3)
    panel.margins(0.08)
    panel.spines[["top", "right"]].set_visible(False)
