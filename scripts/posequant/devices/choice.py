"""Which of a model's networks to ship for a device: the fastest there that loses no more than is tolerated."""

from collections.abc import Mapping
from typing import Any

from posequant.workflow.settings.report import Tolerance

# Networks that take so little longer than the fastest are as fast: of those, the nearest to FP32 is taken.
AS_FAST = 1.05


def choose(rows: Mapping[str, Mapping[str, Any]], full: str | None, tolerance: Tolerance) -> dict[str, Any] | None:
    """Return which row to ship, with how many threads it is fastest, and why no other.

    Args:
        rows: of a model, by their names: `latency` by setting, `to_fp32`, and `load` with what `failed`.
        full: the name of the FP32 row.
        tolerance: what a row may lose against FP32.

    Returns:
        `row`, `setting`, `milliseconds`, and `others`: for each other row a reason in words. None where nothing was
        timed, or there is no FP32 to compare with.
    """
    timed = {name: row for name, row in rows.items() if row.get("latency")}
    if full not in timed:
        return None
    best = {name: min(row["latency"].items(), key=lambda item: item[1]["median_ms"]) for name, row in timed.items()}
    refused = {name: reason for name, row in timed.items() if (reason := _too_much(row, tolerance))}
    times = {name: float(time["median_ms"]) for name, (_, time) in best.items()}
    allowed = {name: time for name, time in times.items() if name not in refused}
    fastest = min(allowed.values())
    alike = [name for name, time in allowed.items() if time <= AS_FAST * fastest]
    row = min(alike, key=lambda name: (loss_of(rows[name]) or 0.0, times[name]))
    others = {name: refused.get(name) or _slower(times[name], times[row]) for name in timed if name != row}
    others |= {
        name: f"it does not run there ({one['load']['failed']})" for name, one in rows.items() if name not in timed
    }
    return {"row": row, "setting": best[row][0], "milliseconds": times[row], "others": others}


def loss_of(row: Mapping[str, Any]) -> float | None:
    """Return 1 - the mean OKS of a row to FP32 there; None for FP32 itself, or where it is not known."""
    found = row.get("to_fp32", {}).get("oks")
    return None if found is None else 1 - float(found["value"])


def _too_much(row: Mapping[str, Any], tolerance: Tolerance) -> str:
    """Return in words that a row surely loses more than is tolerated; nothing where it may not."""
    compared = row.get("to_fp32")
    if not compared:
        return ""
    near, precision = compared["oks"], compared["score"]
    if near and near["interval"] and 1 - near["interval"][1] > tolerance.oks_loss:
        return f"its OKS loss of {1 - near['value']:.4f} is more than the {tolerance.oks_loss:g} that are tolerated"
    if precision["interval"] and -precision["interval"][1] > tolerance.ap_loss:
        return f"its AP is {-precision['difference']:.4f} lower, more than the {tolerance.ap_loss:g} that are tolerated"
    return ""


def _slower(time: float, chosen: float) -> str:
    ratio = time / chosen
    if ratio > AS_FAST:
        return f"it takes {ratio:.2f} times as long"
    return "it is as fast, and farther from FP32"
