"""What a verdict says, in words: the same on the page, in the report and in a package."""

from collections.abc import Iterator
from dataclasses import dataclass

from posequant.report.result import Network, Row
from posequant.report.verdict import Judgement, Verdict

HEADLINES = {"within": "within the tolerance", "outside": "outside the tolerance"}


@dataclass(frozen=True)
class Words:
    """A verdict in words, as plain text.

    Attributes:
        headline: what is decided.
        gained: what the row keeps and what it gains, one sentence; empty where nothing is known.
        losses: a sentence for each loss, with its interval and its limit.
        note: what the configuration says that a reader must know; empty where it says nothing.
    """

    headline: str
    gained: str
    losses: tuple[str, ...]
    note: str

    @property
    def text(self) -> str:
        """The sentences after the headline."""
        return " ".join(filter(None, (self.gained, *self.losses, self.note)))


def in_words(network: Network, row: Row) -> Words | None:
    """Return the verdict on a row in words; None for a row without a verdict."""
    if row.verdict is None or row.certificate is None:
        return None
    images, verdict = row.certificate["images"], row.verdict
    gained = _listed(list(_gained(network, row)))
    said = network.measure.said
    return Words(
        headline=_headline(verdict, images),
        gained=said(f"It {gained}.") if gained else "",
        losses=(
            said(f"Loss of OKS to FP32: {loss_in_words(verdict.oks, images)}."),
            said(f"Loss of AP: {loss_in_words(verdict.ap, images)}."),
        ),
        note=row.note or "",
    )


def _headline(verdict: Verdict, images: int) -> str:
    if verdict.kind != "undecided":
        return HEADLINES[verdict.kind]
    if verdict.oks.loss is None:
        return "not known: FP32 is sure of no keypoint"
    return _undecided(verdict.oks, images)


def _undecided(judgement: Judgement, images: int) -> str:
    enough = judgement.images_to_decide
    return f"undecided on {images:,} images" + (f"; about {enough:,} would decide" if enough is not None else "")


def loss_in_words(judgement: Judgement, images: int) -> str:
    """Return a loss with its interval, its limit and what is decided: `0.003 [0.002, 0.004], limit 0.005, within`."""
    if judgement.loss is None:
        return f"not known (limit {judgement.limit:g})"
    between = " [{:.4f}, {:.4f}]".format(*judgement.interval) if judgement.interval else ""
    remark = f", {_undecided(judgement, images)}" if judgement.kind == "undecided" else f", {judgement.kind}"
    return f"{judgement.loss:.4f}{between}, limit {judgement.limit:g}{remark}"


def _gained(network: Network, row: Row) -> Iterator[str]:
    assert row.certificate is not None
    if share := row.certificate["share_of_fp32"]:
        between = " [{:.1%}, {:.1%}]".format(*share["interval"]) if share["interval"] else ""
        yield f"keeps {share['value']:.1%} of FP32's AP{between}"
    if within := (row.certificate["without_labels"]["within"] or {}).get("2"):
        yield f"moves {within['value']:.1%} of the keypoints by no more than 2 px"
    full = network.fp32_of(row)
    if full is None:
        return
    if faster := row.cost.latency.against_fp32:
        # One digit: the median of a run says no more.
        yield f"is {f'{faster:.1f}x ' if abs(faster - 1) >= 0.05 else ''}as fast as {full.title}"
    yield f"has {row.cost.size_bytes / full.cost.size_bytes:.0%} of its size"


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""
