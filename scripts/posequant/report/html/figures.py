"""The figures of the HTML report, as Plotly takes them: data and layout in plain JSON.

Colours of text and lines are left to the report's style sheet, which knows whether the page is dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posequant.base.figures import BLUE, GREY, ORANGE, PURPLE
from posequant.base.figures import PRECISION_COLOURS as COLOURS
from posequant.base.pareto import pareto_front
from posequant.report.result import Network, Row
from posequant.report.verdict import Judgement, lost

_WITHIN_COLOURS = {"1": PURPLE, "2": BLUE, "4": ORANGE}
_SYMBOLS = {
    "pytorch": "circle",
    "onnxruntime": "square",
    "openvino": "diamond",
    "ncnn": "triangle-up",
    "ncnn-vulkan": "triangle-down",
}
# Of intervals; seen on light and on dark.
_BAR = "#7d858f"
_ROW_HEIGHT, _FRAME_HEIGHT = 34, 110


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        id: names it within the report.
        title: what it shows.
        caption: how to read it.
        height: in pixels.
        data: Plotly's traces.
        layout: Plotly's layout.
    """

    id: str
    title: str
    caption: str
    height: int
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]


def network_figures(network: Network, key: str) -> list[Figure]:
    """Return the figures of a network; those of rows with certificates are left out where there are none.

    Args:
        network: with its rows.
        key: what the ids of its figures begin with.
    """
    certified = [row for row in network.rows if row.verdict]
    figures = []
    if certified:
        figures += [_oks_losses(certified, key), _ap_losses(certified, key)]
    figures.append(_tradeoff(network, key))
    if any(_within(row) for row in certified):
        figures.append(_moved(certified, key))
    if certified:
        figures.append(_joints(certified, key))
    figures.append(_memory(network, key))
    return figures


def attribution_figures(row: Row, key: str) -> list[Figure]:
    """Return the figures of a row's attribution to layers and steps."""
    assert row.attribution is not None
    return [_layers(row.attribution, key), _waterfall(row.attribution, key)]


def _layout(**changed: Any) -> dict[str, Any]:
    margin = {"l": 8, "r": 16, "t": 8, "b": 44}
    return {
        "margin": margin,
        "font": {"size": 13, "family": "system-ui, sans-serif"},
        "hoverlabel": {"align": "left"},
        "showlegend": False,
        **changed,
    }


def _rows_axis(rows: Sequence[Row]) -> dict[str, Any]:
    # From top to bottom, as in the table.
    titles = [row.title for row in rows]
    return {"automargin": True, "categoryorder": "array", "categoryarray": titles[::-1], "ticks": "", "showgrid": False}


def _loss_figure(rows: Sequence[Row], judgements: Sequence[Judgement], axis: str) -> tuple[list[Any], dict[str, Any]]:
    known = [(row, judgement) for row, judgement in zip(rows, judgements, strict=True) if judgement.loss is not None]
    losses = [judgement.loss or 0.0 for _, judgement in known]
    between = [judgement.interval or (loss, loss) for (_, judgement), loss in zip(known, losses, strict=True)]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": losses,
        "y": [row.title for row, _ in known],
        "marker": {"size": 11, "color": [COLOURS[row.precision] for row, _ in known]},
        "error_x": _errors(losses, between),
        "customdata": [[*ends, judgement.kind] for ends, (_, judgement) in zip(between, known, strict=True)],
        "hovertemplate": "%{y}<br>loss %{x:.4f} [%{customdata[0]:.4f}, %{customdata[1]:.4f}]"
        "<br>%{customdata[2]}<extra></extra>",
    }
    limit = judgements[0].limit
    layout = _layout(
        xaxis={"title": {"text": axis}, "zeroline": True, "range": _range([0.0, limit, *sum(between, ())])},
        yaxis=_rows_axis(rows),
        shapes=[
            {
                "type": "line",
                "x0": limit,
                "x1": limit,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"dash": "dash", "width": 1.5},
            }
        ],
    )
    return [trace], layout


def _errors(values: Sequence[float], between: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return how far intervals, from low to high, reach beyond their values."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, (_, high) in zip(values, between, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, between, strict=True)],
        "thickness": 1.5,
        "color": _BAR,
    }


def _range(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low)
    return [low - room, high + room]


def _oks_losses(rows: Sequence[Row], key: str) -> Figure:
    data, layout = _loss_figure(rows, [row.verdict.oks for row in rows if row.verdict], "loss of OKS to FP32")
    caption = (
        "1 - the mean OKS of a row's poses with those of FP32 in the same runtime in the place of the truth, with its "
        "interval. The dashed line is the tolerance: a row whose interval ends left of it is within."
    )
    return Figure(f"{key}-oks", "Loss of OKS to FP32", caption, _height(rows), data, layout)


def _ap_losses(rows: Sequence[Row], key: str) -> Figure:
    data, layout = _loss_figure(rows, [row.verdict.ap for row in rows if row.verdict], "loss of AP")
    caption = (
        "AP of FP32 in the same runtime - AP of the row, with its interval; left of 0 the row scores higher. The "
        "dashed line is the tolerance. An interval on both sides of it decides nothing."
    )
    return Figure(f"{key}-ap", "Loss of AP", caption, _height(rows), data, layout)


def _height(rows: Sequence[Row]) -> int:
    return _FRAME_HEIGHT + _ROW_HEIGHT * len(rows)


def _tradeoff(network: Network, key: str) -> Figure:
    reference = network.measurement.reference
    known = [(row, share) for row in network.rows if (share := network.kept(row))]
    times = [1 / row.cost.latency.speedup for row, _ in known]
    kept = [100 * value for _, (value, _) in known]
    between = [tuple(100 * end for end in ends or (value, value)) for _, (value, ends) in known]
    largest = max((row.cost.size_bytes for row in network.rows), default=1)
    front = pareto_front(times, [-share for share in kept])
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": times,
        "y": kept,
        "error_y": _errors(kept, between),
        "marker": {
            "size": [12 + 26 * (row.cost.size_bytes / largest) ** 0.5 for row, _ in known],
            "color": [COLOURS[row.precision] for row, _ in known],
            "symbol": [_SYMBOLS[row.backend] for row, _ in known],
            "opacity": 0.8,
        },
        "customdata": [[row.title, row.cost.latency.median_ms, row.cost.size_bytes / 1e6] for row, _ in known],
        "hovertemplate": "%{customdata[0]}<br>%{y:.2f}% of AP<br>%{customdata[1]:.2f} ms, %{x:.2f} of that of "
        f"{reference}<br>%{{customdata[2]:.2f}} MB<extra></extra>",
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": [times[place] for place in front],
        "y": [kept[place] for place in front],
        "line": {"shape": "hv", "color": GREY, "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }
    caption = (
        "Left is faster, up is nearer to FP32. Colour: grey FP32, blue FP16, green BF16, orange INT8; shape: the "
        "runtime (circle PyTorch, square ONNX Runtime, diamond OpenVINO, triangle ncnn, on its tip ncnn on Vulkan); "
        "marks grow with the size on disk. Rows in reduced precision are compared with FP32 in the same runtime, with "
        "intervals; FP32 with "
        f"{network.reference.title}. The dotted line joins the rows that no other beats in both; where intervals "
        "overlap, that may be chance."
    )
    layout = _layout(
        xaxis={"title": {"text": f"time, {reference} = 1"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "AP kept, %"}, "automargin": True},
    )
    return Figure(f"{key}-tradeoff", "AP kept and time", caption, 420, [line, points], layout)


def _within(row: Row) -> Mapping[str, Any]:
    return (row.certificate or {}).get("without_labels", {}).get("within") or {}


def _moved(rows: Sequence[Row], key: str) -> Figure:
    rows = [row for row in rows if _within(row)]
    data = []
    # The first is drawn lowest.
    for limit, colour in reversed(_WITHIN_COLOURS.items()):
        moved = [lost(_within(row)[limit]) for row in rows]
        shares = [100 * value for value, _ in moved]
        between = [tuple(100 * end for end in ends or (value, value)) for value, ends in moved]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"more than {limit} px",
                "y": [row.title for row in rows],
                "x": shares,
                "error_x": _errors(shares, between),
                "marker": {"color": colour},
                "hovertemplate": "%{y}<br>%{x:.1f}% of the keypoints moved by more than "
                + limit
                + " px<extra></extra>",
            }
        )
    caption = (
        "The share of the keypoints that are farther from FP32's than so many pixels of the image, with intervals. "
        "Keypoints that FP32 is unsure of do not count."
    )
    layout = _layout(
        barmode="group",
        xaxis={"title": {"text": "keypoints, %"}, "rangemode": "tozero"},
        yaxis=_rows_axis(rows),
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "reversed"},
    )
    layout["margin"] = {**layout["margin"], "t": 40}
    return Figure(f"{key}-moved", "Keypoints that moved", caption, _height(rows) + 24 * len(rows), data, layout)


def _joints(rows: Sequence[Row], key: str) -> Figure:
    names = [joint["name"].replace("_", " ") for joint in _joints_of(rows[0])]
    lost = [
        [None if (change := joint["similarity"]["difference"]) is None else -change for joint in _joints_of(row)]
        for row in rows
    ]
    ends = [
        [[joint["labelled"], *(joint["similarity"]["interval"] or (None, None))] for joint in _joints_of(row)]
        for row in rows
    ]
    largest = max((abs(value) for of_row in lost for value in of_row if value is not None), default=0.0) or 1e-9
    trace = {
        "type": "heatmap",
        "x": [row.title for row in rows],
        "y": names,
        "z": [list(column) for column in zip(*lost, strict=True)],
        "customdata": [list(column) for column in zip(*ends, strict=True)],
        # Blue, white and orange of ColorBrewer's PuOr, which is safe for any colour vision.
        "colorscale": [[0, "#2166ac"], [0.5, "#f7f7f7"], [1, "#b35806"]],
        "zmin": -largest,
        "zmax": largest,
        "colorbar": {"thickness": 12, "tickformat": ".3f"},
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{y}, %{x}<br>loss %{z:.4f}<br>difference between %{customdata[1]:.4f} and "
        "%{customdata[2]:.4f}<br>%{customdata[0]} people have it<extra></extra>",
    }
    caption = (
        "How much worse each joint is found than by FP32, against the annotations: the loss of its part in OKS. Orange "
        "is worse, blue is better, white is equal. Single joints have wide intervals: hover to see them."
    )
    layout = _layout(
        xaxis={"automargin": True, "tickangle": -40, "ticks": ""},
        yaxis={"automargin": True, "autorange": "reversed", "ticks": ""},
    )
    return Figure(f"{key}-joints", "Loss by joint", caption, 150 + 22 * len(names), [trace], layout)


def _joints_of(row: Row) -> Sequence[Mapping[str, Any]]:
    joints: Sequence[Mapping[str, Any]] = (row.certificate or {})["joints"]
    return joints


def _memory(network: Network, key: str) -> Figure:
    titles = [row.title for row in network.rows]
    bars = (
        ("size on disk", BLUE, [row.cost.size_bytes / 1e6 for row in network.rows]),
        ("memory", ORANGE, [row.cost.memory_mb for row in network.rows]),
    )
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "x": values,
            "y": titles,
            "marker": {"color": colour},
            "hovertemplate": "%{y}<br>" + name + " %{x:.2f} MB<extra></extra>",
        }
        for name, colour, values in reversed(bars)
    ]
    caption = (
        "Size: the files that the runtime loads. Memory: the peak that opening the network and inferring single crops "
        "adds to a process that has imported the runtime."
    )
    layout = _layout(
        barmode="group",
        xaxis={"title": {"text": "MB"}, "rangemode": "tozero"},
        yaxis=_rows_axis(network.rows),
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "reversed"},
    )
    layout["margin"] = {**layout["margin"], "t": 40}
    return Figure(f"{key}-memory", "Size and memory", caption, _height(network.rows), data, layout)


def _layers(attribution: Mapping[str, Any], key: str) -> Figure:
    layers = attribution["layers"]
    trace = {
        "type": "bar",
        "x": [layer["layer"] for layer in layers],
        "y": [100 * layer["noise_share"] for layer in layers],
        "marker": {"color": [COLOURS["int8"] if layer["bits"] else COLOURS["fp32"] for layer in layers]},
        "customdata": [[layer["kernel"], layer["bits"] or "float", 100 * layer["macs_share"]] for layer in layers],
        "hovertemplate": "%{x}<br>%{customdata[0]}, bits: %{customdata[1]}<br>%{y:.1f}% of the noise, "
        "%{customdata[2]:.2f}% of the work<extra></extra>",
    }
    caption = (
        "Each layer's share of the noise that all layers cause alone, in the network's order. Worth keeping in float "
        "is what has a large share of the noise and little of the work."
    )
    layout = _layout(
        xaxis={"automargin": True, "tickangle": -60, "type": "category", "tickfont": {"size": 10}, "showgrid": False},
        yaxis={"title": {"text": "share of the noise, %"}, "automargin": True, "rangemode": "tozero"},
    )
    return Figure(f"{key}-noise", "Noise by layer", caption, 380, [trace], layout)


def _waterfall(attribution: Mapping[str, Any], key: str) -> Figure:
    steps = [step for step in attribution["waterfall"] if step["sqnr_db"] is not None]
    noises = [100 * step["noise"] for step in steps]
    added = [noise - before for noise, before in zip(noises, [0.0, *noises], strict=False)]
    trace = {
        "type": "waterfall",
        "x": [*(step["step"] for step in steps), "all"],
        "y": [*added, noises[-1] if noises else 0.0],
        "measure": [*("relative" for _ in steps), "total"],
        "increasing": {"marker": {"color": COLOURS["int8"]}},
        "decreasing": {"marker": {"color": COLOURS["bf16"]}},
        "totals": {"marker": {"color": BLUE}},
        "customdata": [*(step["sqnr_db"] for step in steps), steps[-1]["sqnr_db"] if steps else None],
        "hovertemplate": "%{x}<br>adds %{y:.3g}% of noise<br>SQNR %{customdata:.1f} dB<extra></extra>",
        "connector": {"line": {"color": GREY, "width": 1}},
    }
    caption = (
        "From the float network to INT8, step by step: how much noise each step adds to the output, as a share of the "
        "signal's power."
    )
    layout = _layout(
        xaxis={"automargin": True, "type": "category", "showgrid": False},
        yaxis={"title": {"text": "noise, % of the signal"}, "automargin": True, "rangemode": "tozero"},
    )
    return Figure(f"{key}-steps", "From float to INT8", caption, 380, [trace], layout)
