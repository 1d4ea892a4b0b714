"""The attribution and the times of the layers as a Markdown page and as a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from posequant.attribute.times import CONVERSIONS
from posequant.base.errors import InputError
from posequant.base.figures import Drawing
from posequant.base.markdown import decibels, signed, table
from posequant.base.measures import measure_in

WORST = 10


def with_times(attribution: Mapping[str, Any], times: Mapping[str, Any]) -> dict[str, Any]:
    """Return an attribution whose layers have their times, `float_ms` and `int8_ms`, and which has `times` as a whole.

    Raises:
        InputError: the times are those of other files.
    """
    if times["sha256"]["int8"] != attribution["sha256"]["int8"]:
        raise InputError(
            f"the times of {times['variant']}, {times['model']}, are those of other files than its attribution. Delete "
            "both and run again."
        )
    by_name = {layer["layer"]: layer for layer in times["layers"]}
    layers = [
        layer | {key: by_name.get(layer["layer"], {}).get(key) for key in ("float_ms", "int8_ms")}
        for layer in attribution["layers"]
    ]
    return {**attribution, "layers": layers, "times": times}


def to_table(attribution: Mapping[str, Any]) -> pd.DataFrame:
    """Return the layers of an attribution, one a line, in the network's order."""
    return pd.DataFrame(attribution["layers"]).astype({"bits": "Int64"})


def render(attribution: Mapping[str, Any], pictures: Mapping[str, Drawing]) -> str:
    """Return the page of an attribution, as `with_times` makes it.

    Args:
        attribution: the attribution.
        pictures: those of it, by the links to their files.
    """
    return measure_in(attribution).said("\n\n".join(_paragraphs(attribution, pictures)) + "\n")


def worst_first(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the layers by the noise that each puts into the network's output, the largest first."""
    return sorted(layers, key=lambda layer: -layer["noise"])


def half_of_noise(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the fewest layers that make half of the noise of all layers, the worst first."""
    taken: list[Mapping[str, Any]] = []
    for layer in worst_first(layers):
        if sum(one["noise_share"] for one in taken) >= 0.5:
            break
        taken.append(layer)
    return taken


def _paragraphs(attribution: Mapping[str, Any], pictures: Mapping[str, Drawing]) -> Iterable[str]:
    layers, steps, side = attribution["layers"], attribution["waterfall"], attribution["activations_only"]
    yield f"# Where the error of {attribution['variant']} comes from, {attribution['model']}"
    yield _summary(attribution)
    for link, drawing in pictures.items():
        yield f"![{drawing.title}]({link})"
        yield drawing.caption
    yield "## From float to INT8"
    before = [steps[0], *steps[:-1]]
    yield table(
        [
            {"Step": step["step"], **_effect(step), "Added noise": _percent(step["noise"] - previous["noise"])}
            for step, previous in zip(steps, before, strict=True)
        ]
        + [{"Step": f"beside it: {side['step']}", **_effect(side), "Added noise": "-"}]
    )
    yield "\n".join(f"- **{step['step']}**: {step['what']}." for step in (*steps, side))
    worst = worst_first(layers)[:WORST]
    yield "## The worst layer" if len(worst) == 1 else f"## The {len(worst)} worst layers"
    yield table(
        {
            "Layer": layer["layer"],
            "Kernel": layer["kernel"],
            "Computed in": f"INT8, {layer['bits']}-bit weights" if layer["bits"] else f"float, {layer['stored']}",
            "Own SQNR": decibels(layer["local_sqnr_db"]),
            **_effect(layer),
            "Share of noise": f"{layer['noise_share']:.1%}",
            "Work": f"{layer['macs_share']:.2%}",
            "Time in float": _milliseconds(layer["float_ms"]),
            "in INT8": _milliseconds(layer["int8_ms"]),
        }
        for layer in worst
    )
    yield "All layers, in the network's order, are in `attribution.csv`."
    yield "## Where the time goes"
    yield from _times(attribution["times"])
    yield "## How to read it"
    yield from _reading(attribution)
    yield "## Ground"
    hashes = attribution["sha256"]
    yield table(
        {"Ground": title, " ": f"sha256 `{digest}`"}
        for title, digest in (
            *((f"float {name}", digest) for name, digest in hashes["float"].items()),
            *((f"INT8 {name}", digest) for name, digest in hashes["int8"].items()),
            ("Model description", hashes["model"]),
            (f"{attribution['crops']} crops", hashes["crops"]),
        )
    )
    yield ", ".join(f"{name} {number}" for name, number in sorted(attribution["versions"].items())) + "."


def _summary(attribution: Mapping[str, Any]) -> str:
    layers, int8 = attribution["layers"], attribution["waterfall"][-1]
    weights, side = attribution["waterfall"][-2], attribution["activations_only"]
    most = half_of_noise(layers)
    some = "one layer makes" if len(most) == 1 else f"{len(most)} layers make"
    names = ", ".join(layer["layer"] for layer in most[:WORST]) + (", ..." if len(most) > WORST else "")
    larger = "activations" if side["noise"] > weights["noise"] else "weights"
    lost = "" if int8["oks_loss"] is None else f", and the poses lose {int8['oks_loss']:.4f} of OKS"
    return (
        f"On {attribution['crops']} calibration crops the output of the INT8 network has "
        f"**{decibels(int8['sqnr_db'])}** of SQNR against FP32{lost}; more of that is due to {larger} "
        f"({decibels(weights['sqnr_db'])} with INT8 weights alone, "
        f"{decibels(side['sqnr_db'])} with INT8 activations alone). Of {len(layers)} layers, {some} half of the noise "
        f"({names}), with {sum(layer['macs_share'] for layer in most):.1%} of the work."
    )


def _reading(attribution: Mapping[str, Any]) -> Iterable[str]:
    layers, int8 = attribution["layers"], attribution["waterfall"][-1]
    yield (
        "SQNR: 10 log10(sum of squares of the float network's output / sum of squares of the difference from it), over "
        "all crops; 6 dB less are twice the error. Noise is the same as a share, not as a logarithm. OKS loss: 1 - the "
        "mean OKS of the poses with those of the float network in the place of the truth, without labels; keypoints "
        "with a score above 0.2 count, and a person's area is 0.53 times that of the box. Between single layers it is "
        "coarse, as a keypoint moves by a quarter of a heatmap's pixel or not at all."
    )
    yield (
        "Alone: the INT8 layer is put into the float network, with the float network's input, and all that follows is "
        "float. Own SQNR is that of its output there. A layer that is bad by itself may cost little, and a good one "
        "much: compare the two. Work: its part of the network's multiply-accumulates. Worth keeping in float is what "
        "has a large share of the noise and little of the work."
    )
    total = sum(layer["noise"] for layer in layers)
    yield (
        f"Independent errors add up: the noise of all layers alone is {_percent(total)} of the signal, that of the "
        f"INT8 network {_percent(int8['noise'])}. Where the second is much smaller, errors cancel, or their sum is "
        "cut off, as by a ReLU; where it is much larger, layers make the errors of others worse."
    )
    if broken := [layer["layer"] for layer in layers if (layer["local_sqnr_db"] or 0) < 0]:
        yield (
            f"**Below 0 dB by themselves: {', '.join(broken)}.** Their scales do not fit the data, or channels were "
            "rescaled before quantization, and then a comparison layer by layer says nothing."
        )


def _times(times: Mapping[str, Any]) -> Iterable[str]:
    full, int8, parts = times["float"], times["int8"], times["parts"]
    total = int8["layers_ms"]

    def share(*names: str) -> str:
        return f"{sum(part['int8_ms'] for part in parts if part['part'] in names) / total:.0%}"

    kernels = [part for part in parts if part["macs"] and part["part"].startswith("INT8")]
    weighted = [part["part"] for part in parts if part["macs"] and part not in kernels]
    without = [part["part"] for part in parts if not part["macs"] and part["part"] not in CONVERSIONS]
    yield (
        f"On one thread the INT8 network takes **{_milliseconds(int8['whole_ms'])}** for a crop and the float network "
        f"{_milliseconds(full['whole_ms'])}: it is {times['speedup']:.2f} times as fast. Of INT8's time, "
        f"{share(*(part['part'] for part in kernels))} are in INT8 kernels, {share(*weighted)} in float layers with "
        f"weights, {share(*CONVERSIONS)} in conversions between INT8, sums and float, and "
        f"{share(*without)} in layers without weights."
    )
    macs = sum(part["macs"] for part in parts)
    yield table(
        {
            "Part": part["part"],
            "Layers": str(part["layers"]),
            "Work": f"{part['macs'] / macs:.1%}" if part["macs"] else "-",
            "In float": _milliseconds(part["float_ms"] or None),
            "In INT8": _milliseconds(part["int8_ms"]),
            "Share of INT8": f"{part['int8_ms'] / total:.1%}",
            "Billion multiply-accumulates in a second": _rate(part),
        }
        for part in parts
    )
    yield (
        f"On {times['cpu']['name']}: medians of {times['rounds']} rounds, float and INT8 in turn, in processor time of "
        f"one thread. Added up, the layers of the float network take {_compared(full)}; those of the INT8 network take "
        f"{_compared(int8)}. What turns sums into outputs is timed by itself, and taken off its layer."
    )
    yield "### What rewriting the graph would win back"
    yield from _rewriting(times, kernels)


def _compared(times: Mapping[str, float]) -> str:
    """Return how well the layers of a network add up."""
    quartiles = " to ".join(_milliseconds(times[f"{name}_quartile_ms"]) for name in ("first", "third"))
    return f"{times['layers_ms'] / times['whole_ms']:.1%} of its time in one piece (quartiles of that: {quartiles})"


def _rewriting(times: Mapping[str, Any], kernels: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    again, behind, stem = (times["rewriting"][key] for key in ("one_conversion", "upsampling_behind", "fold_stem"))
    total = times["int8"]["layers_ms"]

    def saved(rewriting: Mapping[str, Any]) -> str:
        return f"{_milliseconds(max(0.0, rewriting['ms']))}, {max(0.0, rewriting['ms']) / total:.1%} of the time"

    several = len(again["layers"]) != 1
    lines = [
        f"The step `fold-stem` for {stem['layers'][0]}: {saved(stem)}."
        if stem["layers"]
        else "There is no first convolution for the step `fold-stem`.",
        f"{len(again['layers'])} {'layers convert' if several else 'layer converts'} a tensor to INT8 that another "
        f"layer converts by the same scale: {saved(again)}.",
        f"1x1 convolutions that read nothing but copies of pixels, which could be made behind them: "
        f"{', '.join(behind['layers']) or 'none'}; {saved(behind)}.",
        "Sums cannot move: behind a convolution, two convolutions would take the place of one, and round otherwise.",
    ]
    if kernels:
        best = max(part["macs"] / part["int8_ms"] for part in kernels)
        now, then = sum(part["int8_ms"] for part in kernels), sum(part["macs"] for part in kernels) / best
        lines.append(
            f"What is left is ncnn's own: were all INT8 kernels as fast as the fastest kind ({best / 1e6:.0f} billion "
            f"multiply-accumulates in a second), they would take {_milliseconds(then)} in place of "
            f"{_milliseconds(now)}."
        )
    yield "\n".join(f"- {line}" for line in lines)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _rate(part: Mapping[str, Any]) -> str:
    return f"{part['macs'] / part['int8_ms'] / 1e6:.0f}" if part["macs"] and part["int8_ms"] > 0 else "-"


def _effect(effect: Mapping[str, Any]) -> dict[str, str]:
    return {
        "Output SQNR": decibels(effect["sqnr_db"]),
        "Noise": _percent(effect["noise"]),
        "OKS loss": _loss(effect["oks_loss"]),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _loss(value: float | None) -> str:
    return "-" if value is None else signed(value)
