"""Pieces of Markdown pages."""

from collections.abc import Callable, Iterable, Mapping

from tabulate import tabulate


def table(lines: Iterable[Mapping[str, str]]) -> str:
    """Return a table, a line for each of `lines`: from the column's title to the text of the cell."""
    markdown: str = tabulate(list(lines), headers="keys", tablefmt="pipe", disable_numparse=True)
    return markdown


def unbroken_table(lines: Iterable[Mapping[str, str]]) -> str:
    """Return a table whose cells do not wrap."""
    return table({title: cell.replace(" ", "\N{NO-BREAK SPACE}") for title, cell in line.items()} for line in lines)


def signed(difference: float) -> str:
    """Return a difference with its sign and four decimals; what rounds to zero is positive."""
    return f"{round(difference, 4) + 0.0:+.4f}"


def figure_or_dash(value: float | None, form: Callable[[float], str] = "{:.4f}".format) -> str:
    """Return a figure, with four decimals or as `form` has it; a dash for one that is unknown."""
    return "-" if value is None else form(value)


def decibels(ratio: float | None) -> str:
    """Return a signal-to-noise ratio in words; None is that of equal outputs."""
    return "as float" if ratio is None else f"{ratio:.1f} dB"
