"""What was measured on the way of a recipe as a picture: loss against latency and size, and what no other beats."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.svg import save_svg
from posequant.recipe.page import TITLES, taken
from posequant.recipe.recipe import budget_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRIED, UNDONE, TAKEN, FRONT, LIMIT = "#4477aa", "#bbbbbb", "#228833", "#ccbb44", "#ee6677"


def draw(record: Mapping[str, Any], target: Path) -> None:
    """Write an SVG of a recipe's record.

    Args:
        record: as `apply_recipe_to_files` makes it.
        target: the file to write; equal records give equal bytes.
    """
    from matplotlib.figure import Figure

    budget, rungs = budget_of(record["recipe"]), record["rungs"]
    measure = budget.measure if budget else "expected_oks_loss"
    losses = [math.nan if rung[measure] is None else rung[measure] for rung in rungs]
    first = rungs[0]["milliseconds"]
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    prices = ([rung["milliseconds"] / first for rung in rungs], [rung["megabytes"] for rung in rungs])
    for panel, price, label in zip(panels, prices, ("latency against line 0", "MB of weights"), strict=True):
        _draw_panel(panel, price, losses, rungs)
        panel.set(xlabel=label)
        if budget:
            panel.axhline(budget.limit, color=LIMIT, linestyle="--", linewidth=1, label="budget")
    panels[0].set(ylabel=TITLES[measure], title=record["model"])
    panels[1].legend(frameon=False)
    save_svg(figure, target)


def pareto_front(prices: Sequence[float], losses: Sequence[float]) -> list[int]:
    """Return the places of the points than which none is both cheaper and better, by rising price; NaN is left out."""
    front: list[int] = []
    known = [place for place, loss in enumerate(losses) if not math.isnan(loss)]
    for place in sorted(known, key=lambda place: (prices[place], losses[place])):
        if not front or losses[place] < losses[front[-1]]:
            front.append(place)
    return front


def _draw_panel(
    panel: "Axes", prices: Sequence[float], losses: Sequence[float], rungs: Sequence[Mapping[str, Any]]
) -> None:
    front, last = pareto_front(prices, losses), taken(rungs)
    ends = [prices[place] for place in front], [losses[place] for place in front]
    panel.step(*ends, where="post", color=FRONT, label="Pareto front", zorder=1)
    for title, colour, places in (
        ("tried", TRIED, [place for place, rung in enumerate(rungs) if not rung["undone"] and place != last]),
        ("undone", UNDONE, [place for place, rung in enumerate(rungs) if rung["undone"]]),
        ("taken", TAKEN, [last]),
    ):
        if places:
            points = [prices[place] for place in places], [losses[place] for place in places]
            panel.scatter(*points, color=colour, label=title, zorder=2)
    for place, (price, loss) in enumerate(zip(prices, losses, strict=True)):
        if not math.isnan(loss):
            panel.annotate(str(place), (price, loss), (4, 4), textcoords="offset points", fontsize=8)
    panel.grid(alpha=0.3)
    panel.margins(0.08)
    panel.spines[["top", "right"]].set_visible(False)
