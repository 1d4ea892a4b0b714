"""Pictures: one style, colours that people with any colour vision tell apart, equal bytes for equal figures."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, Color Universal Design, 2008.
BLUE, SKY, GREEN, YELLOW = "#0072b2", "#56b4e9", "#009e73", "#f0e442"
ORANGE, VERMILION, PURPLE, GREY, BLACK = "#e69f00", "#d55e00", "#cc79a7", "#999999", "#000000"
PRECISION_COLOURS = {"fp32": GREY, "fp16": SKY, "bf16": GREEN, "int8": VERMILION}

# In inches: a page of a report shows that without making it smaller.
WIDTH = 8.0
# Of a row's line, and of what stands around the lines of one panel.
LINE_HEIGHT, FRAME_HEIGHT = 0.28, 0.85

_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    # White on dark pages, too: text and lines are dark.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # SVG elements are named by random numbers otherwise.
    "svg.hashsalt": "posequant",
    "figure.dpi": 120,
}


@dataclass(frozen=True)
class Drawing:
    """A figure and what is said beside it.

    Attributes:
        name: of its files, without a suffix.
        title: what it shows, in a few words.
        caption: how to read it.
        figure: what is drawn.
        empty: whether there was nothing to draw; pages leave it out.
    """

    name: str
    title: str
    caption: str
    figure: "Figure"
    empty: bool = False


def style() -> AbstractContextManager[None]:
    """Return the context in which figures are drawn."""
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)  # type: ignore[arg-type, no-any-return, unused-ignore]


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """Return an empty figure of so many inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.07, h_pad=0.07)  # type: ignore[union-attr, call-arg]
    return figure


def save(figure: "Figure", target: Path) -> None:
    """Write a figure as SVG, and as PNG of the same name beside it; equal figures give equal bytes.

    Args:
        figure: drawn in `style()`.
        target: the SVG.
    """
    with style():
        # Once for both files; to arrange a figure takes longer than to write it.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        with whole(target) as draft:
            figure.savefig(draft, format="svg", metadata={"Date": None})
        with whole(target.with_suffix(".png")) as draft:
            figure.savefig(draft, format="png", metadata={"Software": None})


def name_lines(panel: "Axes", names: Sequence[str]) -> None:
    """Make the y axis of a panel one line a name, from top to bottom."""
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0, pad=7)
    panel.grid(visible=False, axis="y")
