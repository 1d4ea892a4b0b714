"""The attribution as pictures: from float to INT8; each layer alone, its work and time; where the time goes."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from posequant.base import figures
from posequant.base.figures import Drawing
from posequant.base.measures import measure_in

# More layers than these cannot be named in a picture: then only the noisiest are, so far apart as their names need.
_NAMED, _WORST_NAMED, _NAME_WIDTH = 45, 12, 1 / 45


def draw(attribution: Mapping[str, Any]) -> list[Drawing]:
    """Return the pictures of an attribution, as `page.with_times` makes it: the steps, the layers, and the times."""
    with figures.style():
        return [_steps(attribution), _layers(attribution), _times(attribution)]


def _steps(attribution: Mapping[str, Any]) -> Drawing:
    """Draw what each step adds to the one before it, and the activations alone by themselves."""
    side, measure = attribution["activations_only"], measure_in(attribution)
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
            change = "" if step["oks_loss"] is None else measure.said(f", OKS {-step['oks_loss'] + 0.0:+.4f}")
            place = 100 * max(step["noise"], start)
            panel.annotate(
                f"{step['sqnr_db']:.1f} dB{change}", (place, line), (5, 0), textcoords="offset points", va="center",
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
    layers, lost = attribution["layers"], measure_in(attribution).said("OKS loss")
    figure = figures.new_figure(7.4)
    noise, poses, work, time = figure.subplots(4, 1, height_ratios=[1.4, 1, 1, 1], sharex=True)
    colours = [figures.VERMILION if layer["bits"] else figures.BLUE for layer in layers]
    for panel, values, label in (
        (noise, [100 * layer["noise"] for layer in layers], "noise in\n% of the signal"),
        (poses, [nan if layer["oks_loss"] is None else layer["oks_loss"] for layer in layers], lost),
        (work, [100 * layer["macs_share"] for layer in layers], "% of\nthe work"),
        (time, [layer["int8_ms"] for layer in layers], "time\nin ms"),
    ):
        panel.bar(range(len(layers)), values, color=colours)
        panel.set(ylabel=label, xlim=(-0.7, len(layers) - 0.3))
        panel.grid(visible=False, axis="x")
    in_float = [nan if layer["float_ms"] is None else layer["float_ms"] for layer in layers]
    time.plot(range(len(layers)), in_float, linestyle="none", marker="_", color="black")
    noise.set(title=f"{attribution['model']}, {attribution['variant']}: each layer alone")
    named = _named(layers)
    time.set_xticks(named, [layers[place]["layer"] for place in named], rotation=90)
    figure.align_ylabels()
    some = "" if len(named) == len(layers) else " Only some of the noisiest are named."
    caption = (
        "Each layer as the INT8 network has it, alone in the float network, in the network's order: orange in INT8, "
        "blue in float. Worth keeping in float is a layer whose bar is high in noise or OKS loss and low in "
        f"work. Black lines: its time in the float network.{some}"
    )
    return Drawing("layers", "Each layer alone", caption, figure)


def _times(attribution: Mapping[str, Any]) -> Drawing:
    """Draw the time of each part of the work, in float and in INT8."""
    parts = attribution["times"]["parts"]
    figure = figures.new_figure(0.36 * len(parts) + figures.FRAME_HEIGHT)
    panel = figure.subplots()
    for key, title, offset, colour in (
        ("float_ms", "float network", -0.2, figures.BLUE),
        ("int8_ms", "INT8 network", 0.2, figures.VERMILION),
    ):
        places = [line + offset for line in range(len(parts))]
        panel.barh(places, [part[key] for part in parts], color=colour, height=0.36, label=title)
    figures.name_lines(panel, [part["part"] for part in parts])
    panel.legend(loc="lower right")
    panel.set(xlabel="ms for a crop", title=f"{attribution['model']}, {attribution['variant']}: one thread")
    caption = (
        "Layers with weights by their kernels, without conversions, which are lines of their own; then all others. The "
        "parts of the INT8 network add up to its time, those of the float network to its own."
    )
    return Drawing("times", "Where the time goes", caption, figure)


def _named(layers: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the places of the layers whose names fit below the bars, the noisiest first where not all do."""
    if len(layers) <= _NAMED:
        return list(range(len(layers)))
    named: list[int] = []
    for place in sorted(range(len(layers)), key=lambda place: -layers[place]["noise"]):
        if len(named) < _WORST_NAMED and all(abs(place - other) >= _NAME_WIDTH * len(layers) for other in named):
            named.append(place)
    return sorted(named)
