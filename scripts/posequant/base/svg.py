"""Writing pictures."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_svg(figure: "Figure", target: Path) -> None:
    """Write a figure as SVG; equal figures give equal bytes."""
    import matplotlib as mpl

    # SVG elements are named by random numbers otherwise, and the file would carry the time.
    with mpl.rc_context({"svg.hashsalt": "posequant"}):
        figure.savefig(target, format="svg", metadata={"Date": None})
