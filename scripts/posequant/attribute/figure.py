"""The attribution as a picture: the effect of each layer alone, its work, and the steps from float to INT8."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.svg import save_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INT8, FLOAT, WORK, LESS = "#ee6677", "#4477aa", "#bbbbbb", "#228833"
# Of the picture and of a layer in it, in inches.
LEAST_WIDTH, LAYER_WIDTH, HEIGHT = 10, 0.16, 11


def draw(attribution: Mapping[str, Any], target: Path) -> None:
    """Write an SVG of an attribution, as `attribute` makes it.

    Args:
        attribution: the attribution.
        target: the file to write; equal attributions give equal bytes.
    """
    from matplotlib.figure import Figure

    layers = attribution["layers"]
    figure = Figure(figsize=(max(LEAST_WIDTH, LAYER_WIDTH * len(layers)), HEIGHT), layout="constrained")
    steps, noise, poses, work = figure.subplots(4, 1, height_ratios=[1.1, 1.3, 0.8, 0.8])
    _draw_steps(steps, [*attribution["waterfall"], attribution["activations_only"]])
    steps.set(
        xlabel="noise in % of the signal",
        title=f"{attribution['model']}, {attribution['variant']}: from float to INT8",
    )
    colours = [INT8 if layer["bits"] else FLOAT for layer in layers]
    panels = (
        (noise, [100 * layer["noise"] for layer in layers], colours, "noise in\n% of the signal"),
        (poses, [layer["oks_loss"] or 0.0 for layer in layers], colours, "OKS loss"),
        (work, [100 * layer["macs_share"] for layer in layers], [WORK] * len(layers), "% of\nthe work"),
    )
    for panel, values, bars, label in panels:
        panel.bar(range(len(layers)), values, color=bars)
        panel.set(ylabel=label, xlim=(-0.7, len(layers) - 0.3))
        panel.set_xticks(range(len(layers)), [""] * len(layers))
        panel.grid(axis="y", alpha=0.3)
    noise.set(title="each layer alone in INT8, in the network's order")
    work.set_xticks(range(len(layers)), [layer["layer"] for layer in layers], rotation=90, fontsize=7)
    for panel in (steps, noise, poses, work):
        panel.spines[["top", "right"]].set_visible(False)
    save_svg(figure, target)


def _draw_steps(panel: "Axes", steps: Sequence[Mapping[str, Any]]) -> None:
    """Draw what each step adds to the one before it, and the last of `steps` by itself."""
    *waterfall, side = steps
    starts = [0.0, *(step["noise"] for step in waterfall[:-1]), 0.0]
    added = [100 * (step["noise"] - start) for step, start in zip(steps, starts, strict=True)]
    colours = [INT8 if width >= 0 else LESS for width in added[:-1]] + [WORK]
    titles = [*(step["step"] for step in waterfall), f"beside it: {side['step']}"]
    panel.barh(titles, added, left=[100 * start for start in starts], color=colours)
    for row, (step, start) in enumerate(zip(steps, starts, strict=True)):
        if step["sqnr_db"] is not None:
            loss = "" if step["oks_loss"] is None else f", OKS {-step['oks_loss'] + 0.0:+.4f}"
            place = 100 * max(step["noise"], start)
            panel.annotate(
                f"{step['sqnr_db']:.1f} dB{loss}", (place, row), (4, 0), textcoords="offset points", va="center"
            )
    panel.margins(x=0.25)
    panel.set_xlim(left=0)
    panel.invert_yaxis()
    panel.grid(axis="x", alpha=0.3)
