"""A study of many networks at a glance: a line for each with its best row, and what was left out."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from posequant.base.markdown import figure_or_dash, table, unbroken_table
from posequant.report.published import comparisons
from posequant.report.result import Network, Protocol, Result, Row
from posequant.workflow.settings.precisions import TITLES

FEW = 3
"""So many networks are read one after the other; of more, or where some are left out, a page has an overview."""

_KINDS = ("within", "undecided", "outside")


def best_row(network: Network) -> Row:
    """Return the row of a network to look at first.

    Of the rows in reduced precision that are within the study's tolerance it is the fastest on one thread; where none
    is, the one whose poses are nearest to FP32's, undecided rows first. Without a row in reduced precision it is the
    reference.
    """

    def rank(row: Row) -> tuple[int, float]:
        assert row.verdict is not None
        loss = row.verdict.oks.loss
        within = row.verdict.kind == "within"
        nearness = float("inf") if loss is None else loss
        return _KINDS.index(row.verdict.kind), -row.cost.latency.speedup if within else nearness

    return min((row for row in network.rows if row.verdict), key=rank, default=network.reference)


def overview(result: Result) -> Iterable[str]:
    """Yield the overview in Markdown: nothing for few networks, all of which were run.

    A line links to the section of its network, whose heading is the network's title.
    """
    left_out = result.settings["studies"][result.study].get("left_out", {})
    if len(result.networks) <= FEW and not left_out:
        return
    yield "## Networks"
    yield unbroken_table(_line(network, result.ground.protocol) for network in result.networks)
    yield (
        "Published: the AP under the same protocol. FP32: the AP measured. Best: of the rows within the tolerance the "
        "fastest; where none is, the one whose poses are nearest to FP32's. Speed: against ONNX Runtime FP32."
    )
    if left_out:
        yield "## Left out"
        yield table(_left_out(left_out))


def _line(network: Network, protocol: Protocol) -> dict[str, str]:
    best = best_row(network)
    reference = network.reference
    published = [
        compared.published[network.measure.score]
        for row in network.rows
        for compared in comparisons(row, protocol, network.published)
        if network.measure.score in compared.published
    ]
    verdict = best.verdict
    return {
        "Network": f"[{network.name}](#{_anchor(network.title)})",
        "Input": network.input_size,
        "Published": figure_or_dash(published[0] if published else None, "{:.3f}".format),
        "FP32": figure_or_dash(reference.ap),
        "Best": best.title,
        "AP": figure_or_dash(best.ap),
        "Loss of OKS": f"{figure_or_dash(verdict.oks.loss)}, {verdict.kind}" if verdict else "-",
        "Size": f"{best.cost.size_bytes / 1e6:.2f} MB",
        "Speed": f"{best.cost.latency.speedup:.2f}x",
    }


def _left_out(left_out: Mapping[str, Mapping[str, str]]) -> Iterable[dict[str, Any]]:
    for model, reasons in left_out.items():
        for what, reason in reasons.items():
            rows = f"those of {TITLES[what]}" if what in TITLES else "all"
            yield {"Network": model, "Rows": rows, "Reason": reason.replace("|", "\\|")}


def _anchor(heading: str) -> str:
    """Return the fragment by which a heading is linked to, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
