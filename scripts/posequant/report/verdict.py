"""Whether a row in reduced precision is near enough to FP32, by its certificate and the study's tolerance."""

from collections.abc import Mapping
from typing import Any, Literal

from posequant.base.measures import measure_of
from posequant.evaluate.bootstrap import images_to_decide
from posequant.report.parts import Part
from posequant.workflow.settings.report import Tolerance

Kind = Literal["within", "outside", "undecided"]

# Where a loss is so near its limit that more would be needed, nobody will decide it by more images.
_MOST_IMAGES = 1_000_000


class Judgement(Part):
    """One loss beside its limit.

    Attributes:
        loss: what is lost against FP32; below 0 where the row is better. None where it is not known.
        interval: the confidence interval of the loss, from low to high; None where there is none.
        limit: the largest loss that is tolerated.
        kind: `within` where the interval's high end is at most the limit, `outside` where its low end is above it.
        images_to_decide: on about how many images an undecided interval would lie on one side of the limit, if the
            loss stayed what it is; None where that cannot be told, or where it is more than a million.
    """

    loss: float | None
    interval: tuple[float, float] | None
    limit: float
    kind: Kind
    images_to_decide: int | None


class Verdict(Part):
    """What is said of a row.

    Attributes:
        kind: `outside` where one of the losses is; else what OKS says. AP over few people decides nothing, and its
            being undecided does not count against a row.
        oks: loss of OKS to FP32; NME to it where the keypoints have no sigmas.
        ap: loss of AP, or of PCK.
    """

    kind: Kind
    oks: Judgement
    ap: Judgement


def lost(estimate: Mapping[str, Any]) -> tuple[float, tuple[float, float] | None]:
    """Return 1 - a figure of a certificate, and the interval of that where there is one."""
    between = estimate["interval"]
    return 1 - estimate["value"], None if between is None else (1 - between[1], 1 - between[0])


def judge(certificate: Mapping[str, Any], tolerance: Tolerance) -> Verdict:
    """Return the verdict on a row.

    Args:
        certificate: as `certify` makes it.
        tolerance: the study's.
    """
    images, statistics = certificate["images"], certificate["statistics"]
    near, precision = certificate["without_labels"]["oks"], statistics[measure_of(statistics).score]
    loss, interval = (None, None) if near is None else lost(near)
    oks = judgement_of(loss, interval, tolerance.oks_loss, images)
    difference, between = precision["difference"], precision["interval"]
    ap = judgement_of(
        None if difference is None else 0.0 - difference,
        None if difference is None or between is None else (0.0 - between[1], 0.0 - between[0]),
        tolerance.ap_loss,
        images,
    )
    return Verdict(kind="outside" if ap.kind == "outside" else oks.kind, oks=oks, ap=ap)


def judgement_of(loss: float | None, between: tuple[float, float] | None, limit: float, images: int) -> Judgement:
    """Return whether a loss with its interval, measured on so many images, is at most `limit`."""
    kind: Kind = "undecided"
    enough = None
    if loss is not None and between is not None:
        low, high = between
        if high <= limit:
            kind = "within"
        elif low > limit:
            kind = "outside"
        else:
            enough = images_to_decide(loss, between, limit, images)
            enough = None if enough is None or enough > _MOST_IMAGES else enough
    return Judgement(loss=loss, interval=between, limit=limit, kind=kind, images_to_decide=enough)
