"""The result of a study as a picture: what each variant scores, how fast it runs and how large it is."""

from collections.abc import Sequence
from pathlib import Path

from posequant.base.svg import save_svg
from posequant.report.result import Network

COLOURS = {"fp32": "#4477aa", "fp16": "#66ccee", "bf16": "#228833", "int8": "#ee6677"}
# Of a line of the picture, and of what stands above and below the lines of a model, in inches.
LINE_HEIGHT, FRAME_HEIGHT = 0.26, 0.9


def draw(networks: Sequence[Network], target: Path) -> None:
    """Write an SVG with a line for each variant of each model: its AP, its speed and its size on disk.

    Args:
        networks: with their rows.
        target: the file to write; equal results give equal bytes.
    """
    from matplotlib.figure import Figure

    heights = [FRAME_HEIGHT + LINE_HEIGHT * len(network.rows) for network in networks]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    panels = figure.subplots(len(networks), 3, squeeze=False, sharey="row", height_ratios=heights)
    for (precision, speed, size), network in zip(panels, networks, strict=True):
        titles = [row.title for row in network.rows]
        colours = [COLOURS[row.precision] for row in network.rows]
        scores = [row.ap for row in network.rows]
        precision.scatter(scores, titles, color=colours)
        # No bars: they would have to start at zero, where no difference between backends can be seen.
        precision.set(xlabel="AP", title=network.title)
        precision.margins(x=0.15)
        speed.barh(titles, [row.cost.latency.speedup for row in network.rows], color=colours)
        speed.set(xlabel="speed against ONNX Runtime FP32")
        size.barh(titles, [row.cost.size_bytes / 1e6 for row in network.rows], color=colours)
        size.set(xlabel="MB on disk")
        precision.invert_yaxis()
        for panel in (precision, speed, size):
            panel.grid(axis="x", alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
    save_svg(figure, target)
