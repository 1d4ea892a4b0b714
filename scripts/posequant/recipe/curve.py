"""How much INT8 depends on whom it is calibrated on: on how many people, and on which."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from posequant.base import figures
from posequant.base.errors import InputError
from posequant.base.files import whole, write_json
from posequant.base.html import write_page
from posequant.base.markdown import figure_or_dash, signed, table
from posequant.base.measures import AP, Measure, measure_for
from posequant.data.calibration_set import choose_calibration_set, make_crops
from posequant.data.dataset import ground_truth_instances, load_annotations
from posequant.evaluate.keypoint_metrics import score
from posequant.evaluate.oks import shift_of_predictions
from posequant.evaluate.predict import make_predictions
from posequant.evaluate.predictions import Predictions
from posequant.quantize.ncnn2int8 import quantize_files
from posequant.quantize.ncnn2table import write_table
from posequant.quantize.table import CalibrationTable
from posequant.recipe.recipe import apply_recipe_to_files
from posequant.workflow.settings.base import checked_json
from posequant.workflow.settings.quantize import METHODS
from posequant.workflow.settings.recipe import Recipe, Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One calibration.

    Attributes:
        seed: of the choice of people.
        people: how many were chosen.
        score: AP of the INT8 network, or PCK without sigmas; None where nobody is annotated.
        difference: of it to the FP32 network; None as above.
        oks: mean OKS with the FP32 network's poses as the truth; None where that is sure of no keypoint.
        median_change: how far activation thresholds are from those by the most people with the same seed, as a share of
            these: the median over the layers.
        largest_change: the largest of them.
    """

    seed: int
    people: int
    score: float | None
    difference: float | None
    oks: float | None
    median_change: float
    largest_change: float


# Colours and marks of the seeds, from the first.
_SEEDS = (
    (figures.BLUE, "o"), (figures.VERMILION, "s"), (figures.GREEN, "^"),
    (figures.PURPLE, "D"), (figures.ORANGE, "v"), (figures.SKY, "P"),
)  # fmt: skip
_MEASURED = ("score", "difference", "oks", "median_change", "largest_change")


@dataclass(frozen=True)
class Split:
    """One split of a dataset: COCO keypoint annotations and the folder of their images."""

    annotations: Path
    images: Path


def measure_curve(
    *,
    sizes: Sequence[int],
    seeds: Sequence[int],
    recipe: str | Recipe,
    model: Path,
    param: Path,
    bin_: Path,
    train: Split,
    val: Split,
    reference: Path,
    threads: int,
    target: Target = "any",
) -> list[Point]:
    """Calibrate, quantize and evaluate anew for each number of people and each seed.

    Args:
        sizes: numbers of people; those beyond what the training split has are left out, with a notice.
        seeds: of the choice. With one seed, fewer people are the first of more.
        recipe: `kl` or `aciq`, or the steps of a recipe that does not distill.
        model: the model description.
        param: the float network's `.param`.
        bin_: its `.bin`.
        train: people to choose from; its images must all be there.
        val: people to evaluate on, by their annotated boxes, without flip test.
        reference: predictions of the FP32 network for them.
        threads: how many crops are computed at a time.
        target: what the network is to run on.

    Raises:
        InputError: the recipe distills, a file is missing or damaged, no size is left, or the reference was made under
            another protocol.
    """
    if isinstance(recipe, Recipe) and "distill" in dict(recipe.steps()):
        raise InputError(
            "the recipe has the step 'distill', which would train for minutes for each number of people and each seed. "
            "Make the curve of a row whose recipe has the other steps and not this one."
        )
    full = Predictions.load(reference)
    if not {"boxes": "ground-truth", "flip_test": False}.items() <= full.identity["protocol"].items():
        raise InputError(
            f"{reference}: the curve is measured on annotated boxes without flip test. Give predictions of that kind."
        )
    available = len(ground_truth_instances(load_annotations(train.annotations, full.keypoints)))
    usable = sorted(size for size in set(sizes) if size <= available)
    if not usable:
        raise InputError(
            f"{train.annotations}: has {available} people, fewer than the smallest number to calibrate on."
        )
    if left := sorted(set(sizes) - set(usable)):
        print(f"notice: {train.annotations} has {available} people; left out: {left}", file=sys.stderr)
    annotated, measure = load_annotations(val.annotations, full.keypoints), measure_for(full.keypoints.sigmas)

    def precision(predictions: Predictions) -> float | None:
        return score(predictions, annotated)[1][measure.score]

    full_precision = precision(full)
    points = []
    for seed in seeds:
        scales: dict[int, Mapping[str, np.float32]] = {}
        measured: dict[int, tuple[float | None, float | None]] = {}
        for size in usable:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_json(
                    folder / "people.json",
                    choose_calibration_set(train.annotations, val.annotations, size, seed, full.keypoints),
                )
                make_crops(model, folder / "people.json", train.images, folder / "crops")
                files = _quantize(recipe, model, param, bin_, folder=folder, threads=threads, target=target)
                scales[size] = CalibrationTable.read(folder / "table").activation_scales
                int8 = make_predictions(
                    model=model,
                    variant="curve",
                    backend="ncnn",
                    precision="int8",
                    artifacts=files,
                    images=val.images,
                    annotations=val.annotations,
                    detections=None,
                    flip_test=False,
                    threads=threads,
                )
            measured[size] = precision(int8), shift_of_predictions(full, int8).mean_oks
        for size in usable:
            changes = threshold_changes(scales[size], scales[usable[-1]])
            found, oks = measured[size]
            difference = None if found is None or full_precision is None else found - full_precision
            points.append(Point(seed, size, found, difference, oks, *changes))
    return points


def threshold_changes(scales: Mapping[str, np.float32], most: Mapping[str, np.float32]) -> tuple[float, float]:
    """Return the median and the largest relative difference of thresholds, 1 / scale, over the layers of both."""
    both = [name for name in scales if name in most]
    changes = [abs(float(most[name]) / float(scales[name]) - 1) for name in both]
    return float(np.median(changes)), max(changes)


def _quantize(
    recipe: str | Recipe, model: Path, param: Path, bin_: Path, *, folder: Path, threads: int, target: Target
) -> tuple[Path, Path]:
    files, kept = (param, bin_), []
    if isinstance(recipe, str):
        write_table(folder / "table", param, bin_, folder / "crops", recipe, threads=threads)
    else:
        files = folder / "prepared.param", folder / "prepared.bin"
        record = apply_recipe_to_files(
            recipe,
            model=model,
            param=param,
            bin_=bin_,
            crops=folder / "crops",
            threads=threads,
            out=files,
            table=folder / "table",
            target=target,
            measured=False,
        )
        kept = record["keep_float"]
    int8 = folder / "int8.param", folder / "int8.bin"
    quantize_files(*files, folder / "table", *int8, keep_float=kept)
    return int8


def parse_recipe(text: str) -> str | Recipe:
    """Return `kl` or `aciq`, or the recipe given as JSON; `InputError` if it is neither."""
    return text if text in METHODS else checked_json(Recipe, text, option="--recipe")


def write_curve(
    points: Sequence[Point], title: str, csv: Path, figure: Path, page: Path, *, measure: Measure = AP
) -> None:
    """Write the points as a table, as a picture (SVG, and a PNG beside it) and as a page, each whole or not at all.

    Args:
        points: what was measured.
        title: of page and picture.
        csv: the table to write.
        figure: the picture to write.
        page: the page to write, beside the picture.
        measure: what networks are judged by.
    """
    # What is not known is None in a point, and NaN here: an empty cell of the table and a gap in the picture.
    frame = pd.DataFrame([asdict(point) for point in points]).astype(dict.fromkeys(_MEASURED, float))
    with whole(csv) as draft:
        frame.to_csv(draft, index=False)
    figures.save(_draw(frame, title, measure), figure)
    write_page(page, measure.said(_page(points, title, figure.name)), {figure.name: figure})


def _page(points: Sequence[Point], title: str, figure: str) -> str:
    lines = [
        {
            "People": str(point.people),
            "Seed": str(point.seed),
            "AP": figure_or_dash(point.score),
            "Against FP32": figure_or_dash(point.difference, signed),
            "OKS to FP32": figure_or_dash(point.oks),
            "Thresholds moved, median": f"{point.median_change:.1%}",
            "largest": f"{point.largest_change:.1%}",
        }
        for point in sorted(points, key=lambda point: (point.people, point.seed))
    ]
    return (
        "\n\n".join(
            [
                f"# Calibration people: {title}",
                f"![AP, OKS and thresholds against the number of people]({figure})",
                "Each mark is one calibration, each line one choice of people. Where the lines lie close together and "
                "level, more people change little. Thresholds moved: the median over the layers.",
                table(lines),
                "Thresholds, where activations are clipped, beside those by the most people with the same seed. OKS to "
                "FP32 takes the FP32 poses for the truth. Annotated boxes, no flip test.",
            ]
        )
        + "\n"
    )


def _draw(frame: pd.DataFrame, title: str, measure: Measure) -> "Figure":
    with figures.style():
        figure = figures.new_figure(3.4)
        panels = figure.subplots(1, 3)
        columns = {"difference": "AP against FP32", "oks": "OKS to FP32", "median_change": "thresholds moved"}
        sizes = sorted(frame["people"].unique())
        for panel, (column, label) in zip(panels, columns.items(), strict=True):
            for (seed, part), (colour, marker) in zip(frame.groupby("seed"), cycle(_SEEDS)):
                panel.plot(part["people"], part[column], color=colour, marker=marker, label=f"seed {seed}")
            panel.set_xscale("log", base=2)
            panel.set_xticks(sizes, [str(size) for size in sizes])
            panel.set(xlabel="people calibrated on", title=measure.said(label))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(handles), 6))
        figure.suptitle(title)
        return figure
