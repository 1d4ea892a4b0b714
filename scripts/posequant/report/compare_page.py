"""The comparison of two files as Markdown."""

from collections import Counter
from collections.abc import Callable, Iterable

from posequant.base.markdown import figure_or_dash, signed, table
from posequant.base.measures import measure_of
from posequant.report.compare import Differences, Figure, Interval
from posequant.report.words import loss_in_words

# A figure of each unit, and a difference of two.
_FORMS: dict[str, tuple[Callable[[float], str], Callable[[float], str]]] = {
    "share": ("{:.4f}".format, signed),
    "bytes": (lambda size: f"{size / 1e6:.2f} MB", lambda size: f"{round(size / 1e6, 2) + 0.0:+.2f} MB"),
    "ms": ("{:.2f} ms".format, lambda time: f"{round(time, 2) + 0.0:+.2f} ms"),
}

# Of the tables of a result.
_ORDER = ("AP", "PCK", "OKS to FP32", "Size", "Latency")


def render(differences: Differences) -> str:
    """Return the page of a comparison."""
    measure = measure_of(figure.name for figure in differences.figures)
    return measure.said("\n\n".join(_paragraphs(differences)) + "\n")


def headline(differences: Differences) -> str:
    """Return in words whether the tolerance was kept."""
    kinds = Counter(figure.judgement.kind for figure in differences.figures if figure.judgement)
    judged = kinds.total()
    if not judged:
        return "Nothing was judged"
    counted = f"of {judged} {'figure' if judged == 1 else 'figures'}"
    said = [(f"outside the tolerance: {kinds['outside']} {counted}", kinds["outside"])]
    said.append((f"undecided: {kinds['undecided']} {counted}", kinds["undecided"]))
    text = "; ".join(words for words, count in said if count) or "within the tolerance"
    return text[0].upper() + text[1:]


def in_words(figure: Figure, images: int) -> str:
    """Return what is said of a figure, in one line."""
    if figure.judgement:
        return f"{figure.name}: loss {loss_in_words(figure.judgement, images)}"
    plain, difference = _FORMS[figure.unit]
    values = [figure_or_dash(value, plain) for value in (figure.first, figure.second)]
    change = f", {difference(figure.difference)}" if figure.difference is not None else ""
    remark = f" ({figure.remark})" if figure.remark else ""
    return f"{figure.name}: A {values[0]}, B {values[1]}{change}{remark}"


def _paragraphs(differences: Differences) -> Iterable[str]:
    yield "# Comparison"
    yield f"**{headline(differences)}.** A: `{differences.first}`. B: `{differences.second}`."
    if differences.lost:
        yield "\n".join(f"- **{figure.row}** {in_words(figure, differences.images)}" for figure in differences.lost)
    rows = dict.fromkeys(figure.row for figure in differences.figures)
    if len(rows) == 1:
        (row,) = rows
        yield f"## {row}"
        yield table({"Figure": figure.name, **_cells(figure, differences)} for figure in differences.figures)
    else:
        for name in sorted({figure.name for figure in differences.figures}, key=_ORDER.index):
            yield f"## {name}"
            yield table(
                {"Row": figure.row, **_cells(figure, differences)}
                for figure in differences.figures
                if figure.name == name
            )
    yield from _only_in_one(differences)
    yield _how(differences)


def _cells(figure: Figure, differences: Differences) -> dict[str, str]:
    plain, difference = _FORMS[figure.unit]
    cells = {
        "A": _with_interval(figure.first, figure.first_interval, plain),
        "B": _with_interval(figure.second, figure.second_interval, plain),
        "Difference": figure_or_dash(figure.difference, difference),
    }
    if differences.sampling:
        between = figure.interval
        percent = f"{100 * differences.sampling.confidence:g}% interval"
        cells[percent] = f"[{difference(between[0])}, {difference(between[1])}]" if between else "-"
    return cells | {"Remark": figure.remark or _decision(figure)}


def _with_interval(value: float | None, between: Interval, form: Callable[[float], str]) -> str:
    return figure_or_dash(value, form) + (f" [{form(between[0])}, {form(between[1])}]" if between else "")


def _decision(figure: Figure) -> str:
    if figure.judgement is None:
        return ""
    said = f"{figure.judgement.kind}, tolerance {figure.judgement.limit:g}"
    return said if figure.passed else f"**{said}**"


def _only_in_one(differences: Differences) -> Iterable[str]:
    for name, rows in (("A", differences.only_in_first), ("B", differences.only_in_second)):
        if rows:
            yield f"Only in {name}, so not compared: {', '.join(rows)}."


def _how(differences: Differences) -> str:
    images, gate = f"{differences.images:,} images", differences.gate.gate
    opening = f"Both were evaluated on the same {images}. Differences are B - A. "
    if sampling := differences.sampling:
        rule = {
            "bound": "A loss is within the tolerance where the upper end of its interval is.",
            "estimate": "A loss is within the tolerance where it is itself, whatever its interval.",
        }[gate]
        return (
            f"{opening}Intervals: a paired bootstrap, {sampling.resamples} draws of the images, seed {sampling.seed}. "
            f"OKS to A: mean OKS of B's poses with A's in the place of the truth. {rule}"
        )
    return (
        f"{opening}How sure the differences are cannot be told from these files; predictions tell. A loss is within "
        "the tolerance where it is itself."
    )
