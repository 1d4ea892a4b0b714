"""The attribution as pictures: the steps from float to INT8; the effect of each layer alone, and its work."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from posequant.base import figures
from posequant.base.figures import Drawing

# More layers than these cannot be named in a picture: then only the noisiest are, so far apart as their names need.
_NAMED, _WORST_NAMED, _NAME_WIDTH = 45, 12, 1 / 45


def draw(attribution: Mapping[str, Any]) -> list[Drawing]:
    """Return the pictures of an attribution, as `attribute` makes it: the steps, and the layers."""
    with figures.style():
        return [_steps(attribution), _layers(attribution)]


def _steps(attribution: Mapping[str, Any]) -> Drawing:
    """Draw what each step adds to the one before it, and the activations alone by themselves."""
    side = attribution["activations_only"]
    steps = [*attribution["waterfall"], side]
    starts = [0.0, *(step["noise"] for step in steps[:-2]), 0.0]
    added = [100 * (step["noise"] - start) for step, start in zip(steps, starts, strict=True)]
    colours = [figures.VERMILION if width >= 0 else figures.BLUE for width in added[:-1]] + [figures.GREY]
    figure = figures.new_figure(0.36 * len(steps) + figures.FRAME_HEIGHT)
    panel = figure.subplots()
    panel.barh(range(len(steps)), added, left=[100 * start for start in starts], color=colours, height=0.6)
    figures.name_lines(panel, [*(step["step"] for step in steps[:-1]), f"beside it: {side['step']}"])
    for line, (step, start) in enumerate(zip(steps, starts, strict=True)):
        if step["sqnr_db"] is not None:
            loss = "" if step["oks_loss"] is None else f", OKS {-step['oks_loss'] + 0.0:+.4f}"
            place = 100 * max(step["noise"], start)
            panel.annotate(
                f"{step['sqnr_db']:.1f} dB{loss}", (place, line), (5, 0), textcoords="offset points", va="center",
                fontsize=9,
            )  # fmt: skip
    for line, step in enumerate(steps[:-2]):
        panel.vlines(100 * step["noise"], line + 0.3, line + 0.7, color="#777777", linewidth=0.8)
    most = max(100 * max(step["noise"], start) for step, start in zip(steps, starts, strict=True))
    # Room for what is written beside the longest bar.
    panel.set_xlim(0, 1.45 * most or 1)
    panel.set(xlabel="noise in % of the signal", title=f"{attribution['model']}, {attribution['variant']}")
    caption = (
        "From the top to the bottom, each bar begins where the one before it ended: its length is the noise that the "
        "step adds to the network's output; a blue bar takes noise away. Grey, from 0: the same activations with the "
        "weights in float. Beside the bars, SQNR of the output and the change of OKS, against the float network."
    )
    return Drawing("steps", "From float to INT8", caption, figure)


def _layers(attribution: Mapping[str, Any]) -> Drawing:
    """Draw noise, loss and work of each layer alone, in the network's order."""
    layers = attribution["layers"]
    figure = figures.new_figure(6.2)
    noise, poses, work = figure.subplots(3, 1, height_ratios=[1.4, 1, 1], sharex=True)
    colours = [figures.VERMILION if layer["bits"] else figures.BLUE for layer in layers]
    for panel, values, label in (
        (noise, [100 * layer["noise"] for layer in layers], "noise in\n% of the signal"),
        (poses, [nan if layer["oks_loss"] is None else layer["oks_loss"] for layer in layers], "OKS loss"),
        (work, [100 * layer["macs_share"] for layer in layers], "% of\nthe work"),
    ):
        panel.bar(range(len(layers)), values, color=colours)
        panel.set(ylabel=label, xlim=(-0.7, len(layers) - 0.3))
        panel.grid(visible=False, axis="x")
    noise.set(title=f"{attribution['model']}, {attribution['variant']}: each layer alone")
    named = _named(layers)
    work.set_xticks(named, [layers[place]["layer"] for place in named], rotation=90)
    figure.align_ylabels()
    some = "" if len(named) == len(layers) else " Only some of the noisiest are named."
    caption = (
        "Each layer as the INT8 network has it, alone in the float network, in the network's order: orange in INT8, "
        "blue in float. Worth keeping in float is a layer whose bar is high in noise or OKS loss and low in "
        f"work.{some}"
    )
    return Drawing("layers", "Each layer alone", caption, figure)


def _named(layers: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the places of the layers whose names fit below the bars, the noisiest first where not all do."""
    if len(layers) <= _NAMED:
        return list(range(len(layers)))
    named: list[int] = []
    for place in sorted(range(len(layers)), key=lambda place: -layers[place]["noise"]):
        if len(named) < _WORST_NAMED and all(abs(place - other) >= _NAME_WIDTH * len(layers) for other in named):
            named.append(place)
    return sorted(named)
