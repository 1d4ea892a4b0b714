"""Which network to ship for a device."""

from typing import Any

from posequant.devices.choice import choose
from posequant.devices.page import sentence
from posequant.workflow.settings.report import Tolerance

TOLERANCE = Tolerance()


def row(milliseconds: float, oks: float | None = None, ap: float = 0.0, precision: str = "int8") -> dict[str, Any]:
    """A row with its time, its OKS to FP32 and its difference of AP; intervals are narrow."""
    compared = {
        "oks": {"value": oks, "interval": [oks - 0.001, oks + 0.001]},
        "score": {"difference": ap, "interval": [ap - 0.001, ap + 0.001]},
    } if oks is not None else None  # fmt: skip
    times = {"1 thread": 2 * milliseconds, "4 threads": milliseconds}
    return {
        "precision": precision,
        "load": {"seconds": 0.1},
        "latency": {setting: {"median_ms": time, "against_fp32": 10 / milliseconds} for setting, time in times.items()},
    } | ({"to_fp32": compared} if compared else {})


def chosen(**rows: dict[str, Any]) -> dict[str, Any]:
    found = choose(rows, "ncnn", TOLERANCE)
    assert found is not None
    return found


def test_fastest_that_is_near_enough_is_taken() -> None:
    found = chosen(ncnn=row(10), fp16=row(6, 1.0), int8=row(4, 0.995))
    assert (found["row"], found["setting"], found["milliseconds"]) == ("int8", "4 threads", 4)
    assert found["others"] == {"ncnn": "it takes 2.50 times as long", "fp16": "it takes 1.50 times as long"}


def test_int8_that_loses_too_much_of_oks_is_not() -> None:
    found = chosen(ncnn=row(10), fp16=row(6, 1.0), int8=row(4, 0.97))
    assert found["row"] == "fp16"
    assert found["others"]["int8"] == "its OKS loss of 0.0300 is more than the 0.01 that are tolerated"


def test_int8_that_loses_too_much_of_ap_is_not() -> None:
    found = chosen(ncnn=row(10), int8=row(4, 0.995, ap=-0.01))
    assert found["row"] == "ncnn"
    assert found["others"]["int8"] == "its AP is 0.0100 lower, more than the 0.005 that are tolerated"


def test_of_those_as_fast_the_nearest_to_fp32_is_taken() -> None:
    found = chosen(ncnn=row(10), fp16=row(4.1, 0.9999), int8=row(4, 0.995))
    assert found["row"] == "fp16"
    assert found["others"]["int8"] == "it is as fast, and farther from FP32"


def test_fp32_where_nothing_is_faster() -> None:
    rows = {"ncnn": row(10), "int8": row(14, 0.995)}
    found = chosen(**rows)
    assert found["row"] == "ncnn"
    model = {"choice": found, "rows": rows}
    assert sentence(model, TOLERANCE.filled()) == (
        "**Ship ncnn**: 10.0 ms with 4 threads, and no other is faster and near enough to it. Not int8: it takes 1.40 "
        "times as long."
    )


def test_one_that_does_not_run_is_named() -> None:
    failed = {"precision": "int8", "load": {"failed": "crashed (signal 4)"}}
    assert chosen(ncnn=row(10), int8=failed)["others"] == {"int8": "it does not run there (crashed (signal 4))"}


def test_nothing_is_chosen_where_nothing_was_timed() -> None:
    assert choose({"ncnn": row(10) | {"latency": {}}}, "ncnn", TOLERANCE) is None
    assert "nothing says which row to ship" in sentence({"choice": None, "rows": {}}, TOLERANCE.filled())


def test_sentence_says_why() -> None:
    rows = {"ncnn": row(10), "int8": row(4, 0.995)}
    assert sentence({"choice": chosen(**rows), "rows": rows}, TOLERANCE.filled()) == (
        "**Ship int8**: 4.0 ms with 4 threads, 2.50 times as fast as FP32, at an OKS loss of 0.0050 [0.0040, 0.0060] "
        "(0.01 tolerated). Not ncnn: it takes 2.50 times as long."
    )
