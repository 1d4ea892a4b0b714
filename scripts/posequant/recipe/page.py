"""What a recipe did, as Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from posequant.markdown import table


def render(record: Mapping[str, Any]) -> str:
    """Return the page of a recipe's record, as `apply_recipe_to_files` makes it."""
    return "\n\n".join(_paragraphs(record)) + "\n"


def _paragraphs(record: Mapping[str, Any]) -> Iterable[str]:
    yield "# Recipe"
    yield table(
        {"Step": name, "Settings": ", ".join(f"{key}: {value}" for key, value in settings.items()) or "-"}
        for step in record["recipe"]
        for name, settings in step.items()
    )
    kept = record["keep_float"]
    yield f"In float: {', '.join(kept) if kept else 'no layer'}. Calibrated on {record['crops']} crops."
    if tried := record["tried"]:
        budget = next(step["budget"]["oks_loss"] for step in record["recipe"] if "budget" in step)
        yield f"## What holds the budget of {budget:g}"
        yield table(
            {
                "Step": rung["step"],
                "Layers in float": str(len(rung["keep_float"])),
                "OKS loss": f"**{rung['oks_loss']:.4f}**" if rung["oks_loss"] <= budget else f"{rung['oks_loss']:.4f}",
                "SQNR": f"{rung['sqnr_db']:.1f} dB" if rung["sqnr_db"] is not None else "-",
                "Weights": f"{rung['megabytes']:.2f} MB",
                "Latency": f"{rung['milliseconds']:.2f} ms",
                "Against the first": f"{rung['milliseconds'] / tried[0]['milliseconds']:.2f}x",
            }
            for rung in tried
        )
        yield (
            "Each line keeps the layers above it in float too. OKS loss: 1 - mean OKS with the float network's poses "
            "as the truth, of the real INT8 network on the half of the calibration people that no other step saw. "
            "Latency: one crop on one thread, timed in turn with the first line. "
            + (
                "The last line is the first that holds the budget: it was taken."
                if tried[-1]["oks_loss"] <= budget
                else "**None holds the budget**: the one with the least loss was taken."
            )
        )
