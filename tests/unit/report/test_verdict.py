from typing import Any

import pytest
from tests.unit.result_fixtures import certificate, compared, estimate, metrics

from posequant.report.verdict import judge
from posequant.workflow.settings.report import Tolerance

TOLERANCE = Tolerance(oks_loss=0.01, ap_loss=0.005)


def certified(oks: dict[str, Any] | None, ap: dict[str, Any], images: int = 300) -> dict[str, Any]:
    of = metrics("ncnn-int8", "ncnn", "int8", 0.5, images=images)
    return certificate(of, "ncnn", without_labels={"oks": oks}, statistics={"AP": ap})


NEAR, FAR, UNSURE = estimate(0.995, 0.992, 0.997), estimate(0.98, 0.975, 0.985), estimate(0.991, 0.987, 0.994)
KEPT, LOST, UNCLEAR = (
    compared(0.5, 0.499, -0.003, 0.002),
    compared(0.5, 0.48, -0.03, -0.01),
    compared(0.5, 0.498, -0.01, 0.004),
)


@pytest.mark.parametrize(
    ("oks", "ap", "kind"),
    [
        (NEAR, KEPT, "within"),
        (NEAR, UNCLEAR, "within"),
        (NEAR, LOST, "outside"),
        (FAR, KEPT, "outside"),
        (FAR, UNCLEAR, "outside"),
        (UNSURE, KEPT, "undecided"),
        (UNSURE, UNCLEAR, "undecided"),
        (UNSURE, LOST, "outside"),
        (None, KEPT, "undecided"),
    ],
)
def test_oks_decides_and_ap_where_the_people_suffice(oks: dict[str, Any] | None, ap: dict[str, Any], kind: str) -> None:
    assert judge(certified(oks, ap), TOLERANCE).kind == kind


def test_loss_is_what_is_missing_to_fp32() -> None:
    verdict = judge(certified(NEAR, UNCLEAR), TOLERANCE)
    assert (verdict.oks.loss, verdict.ap.loss) == pytest.approx((0.005, 0.002))
    assert verdict.oks.interval == pytest.approx((0.003, 0.008))
    assert verdict.ap.interval == pytest.approx((-0.004, 0.01))
    assert (verdict.oks.limit, verdict.ap.limit) == (0.01, 0.005)


def test_a_loss_of_nothing_has_no_sign() -> None:
    loss = judge(certified(NEAR, compared(0.5, 0.5, 0.0, 0.0)), TOLERANCE).ap
    assert loss.interval is not None
    assert [f"{value:g}" for value in (loss.loss, *loss.interval)] == ["0", "0", "0"]


@pytest.mark.parametrize(("high", "kind"), [(0.01, "within"), (0.0100001, "undecided")])
def test_loss_of_just_the_limit_is_within(high: float, kind: str) -> None:
    ap = compared(0.5, 0.495, -high, -0.001)
    assert judge(certified(NEAR, ap), Tolerance(oks_loss=0.01, ap_loss=0.01)).ap.kind == kind


def test_says_how_many_images_would_decide() -> None:
    # 0.009 is lost, the limit is 0.001 away, and the interval reaches 0.004 that way: 16 times as many images.
    verdict = judge(certified(UNSURE, KEPT), TOLERANCE)
    assert verdict.oks.images_to_decide == pytest.approx(16 * 300, abs=1)
    assert judge(certified(NEAR, KEPT), TOLERANCE).oks.images_to_decide is None


def test_what_is_not_known_is_undecided() -> None:
    ap = {"reference": None, "candidate": None, "difference": None, "interval": None}
    verdict = judge(certified(NEAR, ap), TOLERANCE)
    assert verdict.kind == "within"
    assert (verdict.ap.kind, verdict.ap.loss, verdict.ap.images_to_decide) == ("undecided", None, None)
