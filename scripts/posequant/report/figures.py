"""The figures of a study: what the rows in reduced precision cost beside FP32, with intervals; time, size, memory."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posequant.base import figures
from posequant.base.figures import Drawing
from posequant.base.pareto import pareto_front
from posequant.report.result import Network, Result, Row
from posequant.report.verdict import Judgement, lost

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NETWORKS = 12
"""Of more networks no picture is drawn: it would be metres high. The report has the figures of each."""

NAMES = ("difference", "tradeoff", "moved", "joints", "sizes", "memory")
"""Of the figures, in the order of the page."""

# A figure and its interval.
Known = tuple[float, tuple[float, float] | None]
Part = tuple[Network, Sequence[Row]]

_JUDGED = {
    "within": (figures.BLUE, "o", figures.BLUE),
    "undecided": (figures.BLACK, "D", "white"),
    "outside": (figures.VERMILION, "s", figures.VERMILION),
}
_WORDS = {"within": "within the tolerance", "undecided": "undecided", "outside": "outside"}
_SIZES = {
    "small": (figures.PURPLE, "^"),
    "medium": (figures.BLUE, "o"),
    "large": (figures.ORANGE, "s"),
}
# Pixels of which the figures by joint and by size tell; one of the certificate's.
_LIMIT = "2"
# Where axes from 0 end at the earliest: what is next to nothing shall not fill a panel.
_LEAST_PERCENT, _LEAST_LOSS = 1.0, 0.001
_TRADEOFF_HEIGHT, _LABEL_HEIGHT = 3.8, 0.19
# The line from a name to its point.
_TIE = {"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}
# Of the mark of the largest row, in square points.
_LARGEST_MARK = 420


def draw(result: Result) -> list[Drawing]:
    """Return all figures of a study, in the order of `NAMES`; each has a panel, or a row of panels, for each network.

    Rows without a certificate, and people or joints that nobody counts for, are left out where they have no figure. Of
    more than `MOST_NETWORKS` all are empty.
    """
    with figures.style():
        if len(result.networks) > MOST_NETWORKS:
            return [_empty(name, "", "", "Too many networks for a picture: see the report.") for name in NAMES]
        return [
            _difference(result),
            _tradeoff(result),
            _moved(result),
            _joints(result),
            _sizes(result),
            _memory(result),
        ]


def _difference(result: Result) -> Drawing:
    name, title = "difference", "Loss to FP32"
    caption = (
        "What each row in reduced precision loses against FP32 in the same runtime, with its interval; further right "
        "is worse, and left of 0 the row is better. The dashed line is the tolerance of the study. An interval that "
        "ends left of it is within the tolerance, one that begins right of it is outside, one that holds it decides "
        "nothing on these images. OKS compares the poses with those of FP32, AP both with the annotations; intervals "
        "of OKS are the narrower ones."
    )
    parts = _parts(result, lambda row: row.verdict is not None)
    if not parts:
        return _empty(name, title, caption)
    figure, grid = _grid(parts, 2)
    for (_, rows), panels in zip(parts, grid, strict=True):
        verdicts = [row.verdict for row in rows if row.verdict]
        judged = ([verdict.oks for verdict in verdicts], [verdict.ap for verdict in verdicts])
        for panel, judgements, label in zip(panels, judged, ("loss of OKS to FP32", "loss of AP"), strict=True):
            _judgements(panel, judgements)
            panel.set(xlabel=label)
    _legend(figure, [(_WORDS[kind], *mark) for kind, mark in _JUDGED.items()])
    return Drawing(name, title, caption, figure)


def _judgements(panel: "Axes", judgements: Sequence[Judgement]) -> None:
    panel.axvline(0, color="#555555", linewidth=0.9, zorder=1)
    panel.axvline(judgements[0].limit, color=figures.BLACK, linestyle="--", linewidth=1.1, zorder=1)
    for kind, (colour, marker, face) in _JUDGED.items():
        known = {
            place: (judgement.loss, judgement.interval)
            for place, judgement in enumerate(judgements)
            if judgement.kind == kind and judgement.loss is not None
        }
        _dots(panel, known, colour, marker, face)
    panel.margins(x=0.08)


def _tradeoff(result: Result) -> Drawing:
    name, title = "tradeoff", "AP kept and latency"
    caption = (
        "Further left is faster, further up is nearer to FP32; the area of a mark is the size on disk. Filled marks "
        "are rows in reduced precision: the share of AP that is kept of FP32 in the same runtime, with its interval. "
        "Hollow ones are FP32: their AP as a share of that of the reference of the summary, without an interval. The "
        "stepped line joins the rows that no other beats in both; where intervals overlap, that may be chance."
    )
    heights = [max(_TRADEOFF_HEIGHT, _LABEL_HEIGHT * len(network.rows) + 1) for network in result.networks]
    figure = figures.new_figure(sum(heights))
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    some = False
    for network, panel, height in zip(result.networks, panels, heights, strict=True):
        points = [(row, _percent(known)) for row in network.rows if (known := network.kept(row))]
        some = some or bool(points)
        _trade(panel, points, height)
        panel.set(title=network.title, xlabel=f"latency, {network.measurement.reference} = 1", ylabel="AP kept, %")
    return Drawing(name, title, caption, figure) if some else _empty(name, title, caption)


def _trade(panel: "Axes", points: Sequence[tuple[Row, Known]], height: float) -> None:
    if not points:
        return
    times = [1 / row.cost.latency.speedup for row, _ in points]
    kept = [value for _, (value, _) in points]
    front = pareto_front(times, [-value for value in kept])
    panel.step(
        [times[place] for place in front], [kept[place] for place in front], where="post", color="#555555",
        linewidth=1.2, linestyle=":", zorder=2.5,
    )  # fmt: skip
    for time, (row, (_, between)) in zip(times, points, strict=True):
        if between:
            panel.vlines(time, *between, color=figures.PRECISION_COLOURS[row.precision], linewidth=1.4, zorder=2)
    largest = max(row.cost.size_bytes for row, _ in points)
    colours = [figures.PRECISION_COLOURS[row.precision] for row, _ in points]
    faces = [
        "white" if row.precision == "fp32" else (colour, 0.8) for (row, _), colour in zip(points, colours, strict=True)
    ]
    panel.scatter(
        times, kept, s=[_LARGEST_MARK * row.cost.size_bytes / largest for row, _ in points], facecolor=faces,
        edgecolor=["#333333" if face == "white" else "white" for face in faces], zorder=3,
    )  # fmt: skip
    panel.margins(x=0.06, y=0.1)
    panel.set_xlim(left=0)
    panel.set_ylim(panel.get_ylim())
    titles = [f"{row.title}, {row.cost.size_bytes / 1e6:.2f} MB" for row, _ in points]
    _name_beside(panel, list(zip(times, kept, titles, strict=True)), _LABEL_HEIGHT / (height - 0.9))


def _name_beside(panel: "Axes", points: Sequence[tuple[float, float, str]], gap: float) -> None:
    """Write the points' names in a column right of the panel, each tied to its point by a line."""
    low, high = panel.get_ylim()
    ordered = sorted(points, key=lambda point: (-point[1], point[0]))
    heights = _apart([(point[1] - low) / (high - low) for point in ordered], gap)
    for (time, kept, title), place in zip(ordered, heights, strict=True):
        panel.annotate(
            title, (time, kept), (1.04, place), textcoords="axes fraction", va="center", fontsize=9.5,
            annotation_clip=False,
            arrowprops=_TIE,
        )  # fmt: skip


def _apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Return places between 0 and 1, from high to low, near the ones that are wanted and `gap` apart where they fit."""
    gap = min(gap, 1 / max(len(wanted) - 1, 1))
    places: list[float] = []
    for number, place in enumerate(wanted):
        # Room is kept for those below.
        lowest = gap * (len(wanted) - 1 - number)
        places.append(max(min(place, places[-1] - gap if places else 1.0), lowest))
    # What was pushed down goes up again as far as its upper neighbours leave room.
    for number in range(1, len(places)):
        place = len(places) - 1 - number
        places[place] = max(places[place], places[place + 1] + gap)
    return places


def _moved(result: Result) -> Drawing:
    name, title = "moved", "Keypoints that moved"
    caption = (
        "The share of the keypoints that are farther from FP32's than so many pixels of the image, with its interval; "
        "further left is nearer to FP32. Each panel has its own scale, from 0. Keypoints that FP32 is unsure of do not "
        "count."
    )
    parts = _parts(result, _counts)
    if not parts:
        return _empty(name, title, caption)
    limits = list(_without_labels(parts[0][1][0])["within"])
    figure, grid = _grid(parts, len(limits))
    for (_, rows), panels in zip(parts, grid, strict=True):
        for panel, limit in zip(panels, limits, strict=True):
            known = {place: _beyond(_without_labels(row), limit) for place, row in enumerate(rows)}
            _dots(panel, known, figures.BLUE)
            panel.set(xlabel=f"more than {limit} px, %")
            _from_zero(panel, _LEAST_PERCENT)
    return Drawing(name, title, caption, figure)


def _joints(result: Result) -> Drawing:
    name, title = "joints", "Keypoints that moved, by joint"
    caption = (
        f"The share of each joint's keypoints that are more than {_LIMIT} px of the image from FP32's, in %; darker is "
        "more. The certificates have the intervals."
    )
    parts = _parts(result, _counts)
    if not parts:
        return _empty(name, title, caption)
    heights = [figures.LINE_HEIGHT * len(rows) + 1.35 for _, rows in parts]
    figure = figures.new_figure(sum(heights))
    panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    shares = [[_of_joints(row) for row in rows] for _, rows in parts]
    largest = max((value for table in shares for line in table for value in line if value == value), default=0.0) or 1.0
    for (network, rows), table, panel in zip(parts, shares, panels, strict=True):
        names = [joint["name"].replace("_", " ") for joint in _without_labels(rows[0])["by_joint"]]
        panel.pcolormesh(table, cmap="Blues", vmin=0, vmax=largest, edgecolor="white", linewidth=1)
        for line, values in enumerate(table):
            for column, value in enumerate(values):
                if value == value:
                    panel.text(
                        column + 0.5, line + 0.5, f"{value:.0f}" if value >= 9.95 else f"{value:.1f}", ha="center",
                        va="center", fontsize=9, color="white" if value > 0.6 * largest else "black",
                    )  # fmt: skip
        panel.set(title=network.title)
        panel.set_xticks(
            [place + 0.5 for place in range(len(names))], names, rotation=50, ha="right", rotation_mode="anchor"
        )
        panel.set_yticks([place + 0.5 for place in range(len(rows))], [row.title for row in rows])
        panel.set_ylim(len(rows), 0)
        panel.tick_params(length=0)
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
    return Drawing(name, title, caption, figure)


def _of_joints(row: Row) -> list[float]:
    """Return the share of each joint's keypoints that moved, in %; NaN where nobody counts."""
    parts = _without_labels(row)["by_joint"]
    return [_beyond(part, _LIMIT)[0] if part["within"] else float("nan") for part in parts]


def _sizes(result: Result) -> Drawing:
    name, title = "sizes", "By size of the person"
    caption = (
        f"Loss of OKS to FP32, and the share of the keypoints that are more than {_LIMIT} px of the image from FP32's, "
        "with intervals, by size of the person: small below 32² px, medium below 96², large from there. A person's "
        "area is 0.53 times that of the box. OKS allows a large person more pixels, so the two need not agree."
    )
    parts = _parts(result, _counts)
    if not parts:
        return _empty(name, title, caption)
    rows_with = [row for _, rows in parts for row in rows]
    present = [size for size in _SIZES if any(_of_size(row, size) for row in rows_with)]
    figure, grid = _grid(parts, 2, height=figures.LINE_HEIGHT + 0.1 * (len(present) - 1))
    for (_, rows), panels in zip(parts, grid, strict=True):
        for number, size in enumerate(present):
            colour, marker = _SIZES[size]
            offset = 0.24 * (number - (len(present) - 1) / 2)
            of_rows = {place + offset: part for place, row in enumerate(rows) if (part := _of_size(row, size))}
            _dots(panels[0], {place: lost(part["oks"]) for place, part in of_rows.items()}, colour, marker)
            _dots(panels[1], {place: _beyond(part, _LIMIT) for place, part in of_rows.items()}, colour, marker)
        panels[0].set(xlabel="loss of OKS to FP32")
        panels[1].set(xlabel=f"moved by more than {_LIMIT} px, %")
        for panel, least in zip(panels, (_LEAST_LOSS, _LEAST_PERCENT), strict=True):
            _from_zero(panel, least)
    _legend(figure, [(size, *_SIZES[size], _SIZES[size][0]) for size in present])
    return Drawing(name, title, caption, figure)


def _of_size(row: Row, size: str) -> Mapping[str, Any] | None:
    return next((part for part in _without_labels(row)["by_size"] if part["name"] == size and part["people"]), None)


def _memory(result: Result) -> Drawing:
    caption = (
        "Size: the files that the runtime loads. Memory: the peak that opening the network and inferring single crops "
        "adds. All bars begin at 0; shorter is better."
    )
    parts = _parts(result, lambda row: True)
    figure, grid = _grid(parts, 2)
    for (_, rows), (size, memory) in zip(parts, grid, strict=True):
        colours = [figures.PRECISION_COLOURS[row.precision] for row in rows]
        for panel, values, form, label in (
            (size, [row.cost.size_bytes / 1e6 for row in rows], "{:.2f}", "size on disk, MB"),
            (memory, [row.cost.memory_mb for row in rows], "{:.1f}", "memory, MB"),
        ):
            bars = panel.barh(range(len(rows)), values, color=colours, height=0.66)
            panel.bar_label(bars, fmt=form, padding=3, fontsize=9)
            panel.set(xlabel=label)
            panel.set_xlim(0, 1.18 * max([*values, 0.01]))
    present = {row.precision for _, rows in parts for row in rows}
    shown = [(name, colour) for name, colour in figures.PRECISION_COLOURS.items() if name in present]
    _legend(figure, [(name.upper(), colour, "s", colour) for name, colour in shown])
    return Drawing("memory", "Size and memory", caption, figure)


def _parts(result: Result, wanted: Any) -> list[Part]:
    """Return the networks that have rows which are wanted, with these."""
    parts = [(network, [row for row in network.rows if wanted(row)]) for network in result.networks]
    return [(network, rows) for network, rows in parts if rows]


def _counts(row: Row) -> bool:
    return row.certificate is not None and row.certificate["without_labels"]["oks"] is not None


def _without_labels(row: Row) -> Mapping[str, Any]:
    assert row.certificate is not None
    found: Mapping[str, Any] = row.certificate["without_labels"]
    return found


def _beyond(part: Mapping[str, Any], limit: str) -> Known:
    """Return the share of keypoints that moved by more than `limit` pixels, in %, and its interval."""
    return _percent(lost(part["within"][limit]))


def _percent(known: Known) -> Known:
    value, between = known
    return 100 * value, None if between is None else (100 * between[0], 100 * between[1])


def _grid(parts: Sequence[Part], columns: int, height: float = figures.LINE_HEIGHT) -> tuple["Figure", Any]:
    """Return a figure with a row of panels for each network, and a line in each for each row of it."""
    heights = [height * len(rows) + figures.FRAME_HEIGHT for _, rows in parts]
    figure = figures.new_figure(sum(heights) + 0.25)
    grid = figure.subplots(len(parts), columns, squeeze=False, sharey="row", height_ratios=heights)
    for (network, rows), panels in zip(parts, grid, strict=True):
        figures.name_lines(panels[0], [row.title for row in rows])
        panels[0].set_title(network.title)
        for panel in panels:
            panel.locator_params(axis="x", nbins=4)
        for panel in panels[1:]:
            panel.tick_params(axis="y", length=0)
            panel.grid(visible=False, axis="y")
    return figure, grid


def _dots(
    panel: "Axes",
    known: Mapping[int, Known] | Mapping[float, Known],
    colour: str,
    marker: str = "o",
    face: str | None = None,
) -> None:
    """Draw figures with their intervals, by their places from top to bottom."""
    if not known:
        return
    ends = {place: between for place, (_, between) in known.items() if between}
    lows, highs = [low for low, _ in ends.values()], [high for _, high in ends.values()]
    panel.hlines(list(ends), lows, highs, color=colour, linewidth=1.6, zorder=2)
    panel.plot(
        [value for value, _ in known.values()], list(known), linestyle="none", marker=marker, markersize=6,
        color=colour, markerfacecolor=face or colour, zorder=3, clip_on=False,
    )  # fmt: skip


def _from_zero(panel: "Axes", least: float) -> None:
    """Let the x axis begin at 0, and end at `least` at the earliest."""
    panel.margins(x=0.08)
    panel.set_xlim(0, max(panel.get_xlim()[1], least))


def _legend(figure: "Figure", entries: Sequence[tuple[str, str, str, str]]) -> None:
    """Write below the figure what marks mean: name, colour, marker and face of each."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="none", marker=marker, color=colour, markerfacecolor=face, label=name)
        for name, colour, marker, face in entries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _empty(name: str, title: str, caption: str, said: str = "No row of this study has such figures.") -> Drawing:
    figure = figures.new_figure(1)
    figure.text(0.5, 0.5, said, ha="center", va="center")
    return Drawing(name, title, caption, figure, empty=True)
