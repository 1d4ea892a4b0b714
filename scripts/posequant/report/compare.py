"""Two files about the same rows: what was lost from the first to the second, and whether that is tolerated.

They are two files of predictions, of metrics, or two results of a study. Only predictions tell how sure a difference
is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from threadpoolctl import threadpool_limits

from posequant import __version__
from posequant.base.errors import InputError
from posequant.base.files import read_json
from posequant.base.measures import AP, measure_of
from posequant.certify.poses import pose_cost
from posequant.data.dataset import load_annotations
from posequant.evaluate.ground import require_common_ground, require_same_people
from posequant.evaluate.paired import bootstrap_predictions
from posequant.evaluate.predictions import Identity, Predictions, require_everyone
from posequant.report.parts import Part
from posequant.report.result import Network, Result, Row, variant_title
from posequant.report.verdict import Judgement, judgement_of
from posequant.workflow.settings.base import checked
from posequant.workflow.settings.certify import Sampling
from posequant.workflow.settings.compare import Gate

# Of predictions and metrics.
SHOWN = ("AP", "AP50", "AP75", "APM", "APL", "AR")
# Where losses are compared with a tolerance, the last digits of a difference of two figures mean nothing.
_DIGITS = 12

FileKind = Literal["predictions", "metrics", "result"]
Interval = tuple[float, float] | None


class Figure(Part):
    """One figure of a row, as both files have it."""

    row: str = Field(description="Of which row.")
    name: str
    unit: Literal["share", "bytes", "ms"] = "share"
    first: float | None = Field(description="None where it is not known, as for the next.")
    second: float | None
    first_interval: Interval = Field(default=None, description="Its own confidence interval, where the file has one.")
    second_interval: Interval = None
    difference: float | None = Field(description="Second - first; None where the two may not be compared.")
    interval: Interval = Field(default=None, description="Confidence interval of the difference, where there is one.")
    judgement: Judgement | None = Field(default=None, description="Of a figure with a tolerance: the loss beside it.")
    passed: bool | None = Field(default=None, description="Of a figure with a tolerance: whether it is within.")
    remark: str = ""


class Differences(Part):
    """What two files say of the same rows."""

    kind: FileKind = Field(description="What the files are.")
    first: str = Field(description="The file that is compared with.")
    second: str = Field(description="The file that is compared.")
    images: int = Field(description="That both were evaluated on.")
    gate: Gate
    sampling: Sampling | None = Field(description="Of the intervals of differences, where there are any.")
    figures: list[Figure]
    only_in_first: list[str] = Field(default=[], description="Rows that the second file lacks.")
    only_in_second: list[str] = Field(default=[], description="Rows that the first file lacks.")

    @property
    def passed(self) -> bool:
        """Whether all figures with a tolerance are within it."""
        return not self.lost

    @property
    def lost(self) -> list[Figure]:
        """The figures that are not within their tolerance."""
        return [figure for figure in self.figures if figure.passed is False]

    @property
    def content(self) -> dict[str, Any]:
        """All of it, as a file has it."""
        return {"schema": 1, "posequant": __version__, "passed": self.passed, **self.model_dump(mode="json")}


class _Metrics(Identity):
    """What `metrics.json` has, at least."""

    images: int
    detections: int
    statistics: dict[str, float | None]


def compare(
    first: Path, second: Path, gate: Gate, annotations: Path | None = None, sampling: Sampling | None = None
) -> Differences:
    """Compare two files of one kind.

    Args:
        first: that is compared with.
        second: that is compared.
        gate: what may be lost.
        annotations: of predictions, the COCO keypoint annotations that both were made for.
        sampling: of the intervals of differences; the certificate's if it is not given.

    Raises:
        InputError: a file is missing, damaged or of no known kind; they are of two kinds; they were not made under one
            protocol for the same people; no row is in both.
    """
    kinds = [file_kind(path) for path in (first, second)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{first} and {second} cannot be compared: {kinds[0]} and {kinds[1]}. Give two of one kind.")
    match kinds[0]:
        case "predictions":
            if annotations is None:
                raise InputError(
                    f"{first}: predictions are compared on the annotations that they were made for. Name them, too."
                )
            return _of_predictions(first, second, gate, annotations, sampling or Sampling())
        case "metrics":
            return _of_metrics(first, second, gate)
        case "result":
            return _of_results(first, second, gate)


def _shown(statistics: Iterable[str]) -> Sequence[str]:
    """Return the statistics that are compared, that which decides first."""
    return SHOWN if measure_of(statistics) == AP else list(statistics)


def file_kind(path: Path) -> FileKind:
    """Return what a file is, by its name and keys; `InputError` if it is none of the three."""
    if path.suffix == ".npz":
        return "predictions"
    content = read_json(path, "Give a result.json, a metrics.json or predictions (.npz).")
    if isinstance(content, Mapping) and "networks" in content:
        return "result"
    if isinstance(content, Mapping) and {"statistics", "detections"} <= content.keys():
        return "metrics"
    raise InputError(f"{path}: neither the result of a study nor metrics. Give a result.json or a metrics.json.")


def _of_predictions(first: Path, second: Path, gate: Gate, annotations: Path, sampling: Sampling) -> Differences:
    ours, theirs = Predictions.load(first), Predictions.load(second)
    require_same_people(ours, theirs, (first, second))
    annotated = load_annotations(annotations, ours.keypoints)
    for predictions, path in ((ours, first), (theirs, second)):
        require_everyone(predictions, path, annotated)
    # As in a certificate: the last bit of a matrix product depends on how many threads share it.
    with threadpool_limits(1):
        drawn, draws = bootstrap_predictions(annotated, ours, theirs, sampling)
        near = pose_cost(ours, theirs, draws).oks
    row, images, comparisons = _pair_title(ours.identity, theirs.identity), len(annotated.images), drawn.comparisons()
    statistics = dict(comparisons)
    shown = _shown(statistics)
    figures = [
        Figure(
            row=row,
            name=name,
            first=(found := statistics[name]).reference,
            second=found.candidate,
            difference=found.difference,
            interval=found.interval,
        )
        for name in shown
    ]
    figures[0] = _judged(figures[0], gate.tolerance, gate, images)
    oks = Figure(
        row=row,
        name="OKS to A",
        first=1.0 if near else None,
        second=near.value if near else None,
        difference=near.value - 1 if near else None,
        interval=(near.interval[0] - 1, near.interval[1] - 1) if near and near.interval else None,
    )
    figures.append(_judged(oks, gate.oks_tolerance, gate, images))
    return Differences(
        kind="predictions",
        first=str(first),
        second=str(second),
        images=images,
        gate=gate,
        sampling=sampling,
        figures=figures,
    )


def _of_metrics(first: Path, second: Path, gate: Gate) -> Differences:
    contents = [read_json(path) for path in (first, second)]
    ours = checked(_Metrics, contents[0], what=str(first))
    theirs = checked(_Metrics, contents[1], what=str(second))
    require_common_ground(contents[0], contents[1], (first, second))
    row = _pair_title(contents[0], contents[1])
    figures = [
        _difference(row, name, ours.statistics.get(name), theirs.statistics.get(name))
        for name in _shown(ours.statistics)
    ]
    figures[0] = _judged(figures[0], gate.tolerance, gate, ours.images)
    return Differences(
        kind="metrics",
        first=str(first),
        second=str(second),
        images=ours.images,
        gate=gate,
        sampling=None,
        figures=figures,
    )


def _of_results(first: Path, second: Path, gate: Gate) -> Differences:
    ours, theirs = Result.read(first), Result.read(second)
    grounds = [result.ground.model_dump() for result in (ours, theirs)]
    for key, value in grounds[0].items():
        if value != grounds[1][key]:
            raise InputError(
                f"{first} and {second} cannot be compared: their {key.replace('_', ' ')} is {value!r} and "
                f"{grounds[1][key]!r}. Run one of the two studies again as the other."
            )
    rows = [
        {(network.name, row.variant): (network, row) for network in result.networks for row in network.rows}
        for result in (ours, theirs)
    ]
    both = [key for key in rows[0] if key in rows[1]]
    if not both:
        raise InputError(f"{first} and {second} cannot be compared: no row is in both, by the names of model and row.")
    figures: list[Figure] = []
    for row in both:
        network, other = rows[0][row][0], rows[1][row][0]
        if differing := [name for name in network.spec if network.spec[name] != other.spec.get(name)]:
            raise InputError(
                f"{first} and {second} cannot be compared: the model {network.name} differs in {', '.join(differing)}. "
                "Give another model another name."
            )
        figures += _of_row(rows[0][row], rows[1][row], gate, ours.ground.images)
    return Differences(
        kind="result",
        first=str(first),
        second=str(second),
        images=ours.ground.images,
        gate=gate,
        sampling=None,
        figures=figures,
        only_in_first=[_row_title(*rows[0][key]) for key in rows[0] if key not in rows[1]],
        only_in_second=[_row_title(*rows[1][key]) for key in rows[1] if key not in rows[0]],
    )


def _of_row(first: tuple[Network, Row], second: tuple[Network, Row], gate: Gate, images: int) -> Iterator[Figure]:
    """Yield the figures of one row of two results, with the network that each is of."""
    (network, ours), (other_network, theirs) = first, second
    title = _row_title(network, ours)
    yield _judged(_difference(title, network.measure.score, ours.ap, theirs.ap), gate.tolerance, gate, images)
    near = [(row.certificate or {}).get("without_labels", {}).get("oks") or {} for row in (ours, theirs)]
    if any(near):
        oks = _difference(title, "OKS to FP32", near[0].get("value"), near[1].get("value"))
        between = {
            name: one.get("interval") for name, one in zip(("first_interval", "second_interval"), near, strict=True)
        }
        yield _judged(Figure(**oks.model_dump() | between), gate.oks_tolerance, gate, images)
    yield _difference(title, "Size", ours.cost.size_bytes, theirs.cost.size_bytes, "bytes")
    before, after = ours.cost.latency.median_ms, theirs.cost.latency.median_ms
    together = {"remark": f"{before / after:.2f}x as fast"}
    apart = {"difference": None, "remark": "not measured in one run, so not compared"}
    one_run = network.measurement.run == other_network.measurement.run
    yield _difference(title, "Latency", before, after, "ms").model_copy(update=together if one_run else apart)


def _difference(
    row: str, name: str, first: float | None, second: float | None, unit: Literal["share", "bytes", "ms"] = "share"
) -> Figure:
    """Return a figure without an interval."""
    difference = None if first is None or second is None else second - first
    return Figure(row=row, name=name, unit=unit, first=first, second=second, difference=difference)


def _judged(figure: Figure, limit: float, gate: Gate, images: int) -> Figure:
    """Return a figure of which a loss up to `limit` is tolerated; one of which anything is, as it is."""
    if limit >= 1:
        return figure
    loss = None if figure.difference is None else _opposite(figure.difference)
    between = None
    if figure.interval and gate.gate == "bound":
        low, high = figure.interval
        between = _opposite(high), _opposite(low)
    judgement = judgement_of(loss, between, limit, images)
    if loss is not None and between is None:
        judgement = judgement.model_copy(update={"kind": "within" if loss <= limit else "outside"})
    return figure.model_copy(update={"judgement": judgement, "passed": judgement.kind == "within"})


def _opposite(difference: float) -> float:
    # The sum is never -0.
    return round(-difference, _DIGITS) + 0.0


def _row_title(network: Network, row: Row) -> str:
    return f"{network.name}: {row.title}"


def _pair_title(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Return what is compared: a row with itself, as another version made it, or two rows of a model."""
    ours, theirs = (variant_title(one["variant"], one["backend"], one["precision"]) for one in (first, second))
    return f"{first['model']}: {theirs}" + (f" against {ours}" if ours != theirs else "")
