"""What networks score on a device, and how long they take: from what its runner gave back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.measures import measure_for
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import compare, installed, versions
from posequant.certify.poses import pose_cost
from posequant.data.crops import Cropper
from posequant.data.dataset import Annotations, Instances, evaluation_instances, load_annotations
from posequant.devices.choice import choose
from posequant.devices.exchange import Result, Way
from posequant.evaluate.keypoint_metrics import score
from posequant.evaluate.oks import shift_of_predictions
from posequant.evaluate.paired import bootstrap_predictions
from posequant.evaluate.predict import PoseReader, identify
from posequant.evaluate.predictions import Predictions
from posequant.workflow.settings.certify import Sampling
from posequant.workflow.settings.report import Tolerance

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """A model that a device has run.

    Attributes:
        model: the model description, `model.json`.
        people: the crops that the device got.
        result: what its runner gave back.
        ways: the networks, by the names of their rows.
    """

    model: Path
    people: Path
    result: Path
    ways: Mapping[str, Way]


@dataclass(frozen=True)
class Ground:
    """Whom networks are scored on, and what is tolerated.

    Attributes:
        annotations: COCO keypoint annotations of the people.
        detections: COCO detection results whose boxes were taken in place of the annotated ones.
        sampling: of the confidence intervals.
        tolerance: what a row may lose against FP32.
    """

    annotations: Path
    detections: Path | None
    sampling: Sampling
    tolerance: Tolerance


def device_result(device: str, models: Sequence[Measured], ground: Ground, threads: int = 1) -> dict[str, Any]:
    """Return the content of a device's `result.json`.

    Args:
        device: its name.
        models: that it has run.
        ground: whom they are scored on.
        threads: how many threads work here, where the same networks are run on the same crops.

    Raises:
        InputError: a file is missing or damaged, or a result is not of these networks and people.
    """
    measured = [ScoredModel(one, ground, threads) for one in models]
    return {
        "device": device,
        "facts": Result(models[0].result).json("facts.json"),
        "people": len(measured[0].instances),
        "images": len(measured[0].annotated.images),
        "chosen": asdict(subset) if (subset := measured[0].instances.subset) else None,
        "bootstrap": ground.sampling.filled(),
        "tolerance": ground.tolerance.filled(),
        "models": {one.spec.name: one.content() for one in measured},
        "versions": versions("ncnn", "numpy"),
    }


class ScoredModel:
    """A model, and the people that it is scored on."""

    def __init__(self, measured: Measured, ground: Ground, threads: int = 1) -> None:
        """Read what a device gave back of the model, and the people.

        Args:
            measured: the model, and what was given back.
            ground: whom it is scored on.
            threads: how many threads work here.

        Raises:
            InputError: as `device_result`.
        """
        self.spec = ModelSpec.load(measured.model)
        self.annotated: Annotations = load_annotations(ground.annotations, self.spec.keypoints)
        self.instances: Instances = evaluation_instances(ground.annotations, ground.detections, self.spec.keypoints)
        self._measured, self._ground, self._threads = measured, ground, threads
        self._result = Result(measured.result)
        self._require_job()

    def _require_job(self) -> None:
        job = self._result.json("job.json")
        if job["people"] != sha256(self._measured.people) or job["count"] != len(self.instances):
            raise InputError(f"{self._measured.result}: is of other people than {self._measured.people}. Run it again.")
        for name, way in self._measured.ways.items():
            ran = job.get("files", {}).get(name), job["options"].get(name)
            if ran != ([sha256(file) for file in way.files], way.options()):
                raise InputError(
                    f"{self._measured.result}: {name} in it is of other networks than {self.spec.name} has now, or was "
                    "run with other options. Run it again."
                )

    def content(self) -> dict[str, Any]:
        """Return what is said of the model."""
        with np.load(self._measured.people) as file:
            crops = Cropper(self.spec).normalise(file["crops"])
        times = _times(self._result)
        full = next((name for name, way in self._measured.ways.items() if way.precision == "fp32"), None)
        rows: dict[str, dict[str, Any]] = {}
        reference: Predictions | None = None
        # FP32 first: the others are compared with it.
        order = sorted(self._measured.ways, key=lambda name: name != full)
        for name in order:
            load = self._result.json(f"load-{name}.json")
            row = {"precision": self._measured.ways[name].precision, "load": load}
            if "failed" not in load:
                there, more = self._run(name, crops)
                if name == full:
                    reference = there
                elif reference is not None:
                    more["to_fp32"] = self._compared(reference, there)
                row |= more
                row["latency"] = times.of(name, full)
            rows[name] = row
        rows = {name: rows[name] for name in self._measured.ways}
        return {
            "input_size": list(self.spec.input_size),
            "judged_by": measure_for(self.spec.keypoints.sigmas).loss,
            "rows": rows,
            "timing": times.circumstances(),
            "choice": choose(rows, full, self._ground.tolerance),
        }

    def predictions_there(self, name: str) -> Predictions:
        """Return what a row predicts there; `InputError` if its outputs are damaged or too few."""
        return self._predictions(name, self._outputs_there(name))

    def _outputs_there(self, name: str) -> list[Floats]:
        outputs = self._result.outputs(name, self._measured.ways[name].network(self.spec))
        if len(outputs[0]) != len(self.instances):
            raise InputError(f"{self._measured.result}: has {len(outputs[0])} outputs of {name}. Run it there again.")
        return outputs

    def _run(self, name: str, crops: Floats) -> tuple[Predictions, dict[str, Any]]:
        """Return what a row predicts there; what it scores, and how far it is from the same row here."""
        outputs = self._outputs_there(name)
        outputs_here = self._measured.ways[name].network(self.spec).forward_on_threads(crops, self._threads)
        there, here = self._predictions(name, outputs), self._predictions(name, outputs_here)
        _, statistics, _ = score(there, self.annotated)
        noise = compare(outputs_here, outputs)
        return there, {
            "statistics": statistics,
            "to_here": {"oks": shift_of_predictions(here, there).mean_oks, "sqnr_db": noise.sqnr_db},
        }

    def _predictions(self, name: str, outputs: Sequence[Floats]) -> Predictions:
        way, instances = self._measured.ways[name], self.instances
        ground = self._ground
        identity = identify(
            spec=self.spec,
            variant=name,
            backend="ncnn",
            precision=way.precision,
            instances=instances,
            # A device mirrors nothing.
            flip_test=False,
            made={file: sha256(file) for file in way.files},
            files={
                "model": self._measured.model,
                "annotations": ground.annotations,
                "detections": ground.detections,
            },
            versions=installed("ncnn", "numpy"),
        )
        poses = PoseReader(self.spec, instances).read(outputs, np.arange(len(instances)))
        return Predictions(instances.ids, instances.image_ids, instances.bboxes, instances.bbox_scores, poses, identity)

    def _compared(self, reference: Predictions, candidate: Predictions) -> dict[str, Any]:
        drawn, draws = bootstrap_predictions(self.annotated, reference, candidate, self._ground.sampling)
        cost = pose_cost(reference, candidate, draws)
        comparisons = dict(drawn.comparisons())
        return {
            "score": asdict(comparisons[measure_for(self.spec.keypoints.sigmas).score]),
            "oks": None if cost.oks is None else asdict(cost.oks),
            "within": None if cost.within is None else {key: asdict(value) for key, value in cost.within.items()},
        }


@dataclass(frozen=True)
class _Times:
    """Times of all rounds.

    Attributes:
        works: row and setting of threads of each column.
        milliseconds: float64 (rounds, works).
        rounds: what is known of each round.
        at_first: how warm and fast the device was before.
    """

    works: list[tuple[str, str]]
    milliseconds: NDArray[np.float64]
    rounds: list[Mapping[str, Any]]
    at_first: Mapping[str, Any]

    def of(self, row: str, full: str | None) -> dict[str, dict[str, float | list[float] | None]]:
        """Return the times of a row by the setting of threads, beside those of FP32."""
        found: dict[str, dict[str, float | list[float] | None]] = {}
        for column, (name, setting) in enumerate(self.works):
            if name != row:
                continue
            times = self.milliseconds[:, column]
            low, median, high, last = (float(value) for value in np.percentile(times, [25, 50, 75, 95]))
            of_full = self.works.index((full, setting)) if full and (full, setting) in self.works else None
            ratio = None if of_full is None else np.percentile(self.milliseconds[:, of_full] / times, [25, 50, 75])
            found[setting] = {
                "median_ms": median,
                "quartiles_ms": [low, high],
                "p95_ms": last,
                "against_fp32": None if ratio is None else float(ratio[1]),
                "against_fp32_quartiles": None if ratio is None else [float(ratio[0]), float(ratio[2])],
            }
        return found

    def circumstances(self) -> dict[str, Any]:
        """Return under what the times were taken."""
        return {
            "rounds": len(self.rounds),
            "waited_s": math.fsum(one["waited_s"] for one in self.rounds),
            "at_first": dict(self.at_first),
            "celsius": _range([one[when]["celsius"] for one in self.rounds for when in ("before", "after")]),
            "mhz": _range([one["after"]["mhz"] for one in self.rounds]),
            "permitted_mhz": _range([one["after"]["permitted_mhz"] for one in self.rounds]),
        }


def _times(result: Result) -> _Times:
    pieces = [result.json(name) for name in result.names(r"latency-\d+\.json")]
    if not pieces:
        return _Times([], np.empty((0, 0)), [], {})
    rounds = [one for piece in pieces for one in piece["rounds"]]
    works = [(row, setting) for row, setting, *_ in pieces[0]["works"]]
    times = np.array([one["milliseconds"] for one in rounds], np.float64)
    return _Times(works, times, rounds, pieces[0]["at_first"])


def _range(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return [min(known), max(known)] if known else None
