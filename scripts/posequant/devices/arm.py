"""An INT8 network on an emulated ARM core: its predictions, and what it computes otherwise than here."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.base.files import sha256
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import as_made, compare
from posequant.data.crops import Cropper, crops_of_images
from posequant.data.dataset import Instances, evaluation_instances, require_sizes
from posequant.data.evaluation_crops import open_crops
from posequant.devices import RUNNER
from posequant.devices.emulation import Emulation
from posequant.devices.exchange import Result, Way, write_networks, write_people
from posequant.devices.levels import compared_blobs, layer_levels
from posequant.evaluate.decode import average_with_mirrored
from posequant.evaluate.predict import PoseReader, identify
from posequant.evaluate.predictions import Predictions
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import agreement

# The first so many people are run in other ways, too.
PEOPLE_COMPARED = 8
# For the first so many of them, the values within the network are compared.
PEOPLE_WITHIN = 2

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class People:
    """The people that an emulated network is run on.

    Attributes:
        instances: who they are.
        images: the folder of their images.
        crops: where `keep_crops` wrote their crops; None to cut them out of the images.
    """

    instances: Instances
    images: Path
    crops: Path | None

    def cut(self, spec: ModelSpec) -> NDArray[np.uint8]:
        """Return their crops, uint8 (N, H, W, 3), in order; `InputError` if an image is missing or damaged."""
        source = open_crops(self.crops, spec, self.instances) if self.crops else None
        if source is None:
            require_sizes(self.images, self.instances, 1, 1)
            source = crops_of_images(Cropper(spec), self.instances, self.images)
        return source(np.arange(len(self.instances)))


def emulate(
    *,
    core: str,
    emulation: Path,
    model: Path,
    variant: str,
    artifacts: Sequence[Path],
    reference_artifacts: Sequence[Path],
    annotations: Path,
    images: Path,
    detections: Path | None,
    crops: Path | None,
    flip_test: bool,
    threads: int,
    workplace: Path,
) -> tuple[Predictions, dict[str, Any]]:
    """Run an INT8 network of ncnn on an emulated core, and compare it with the same network here.

    Args:
        core: as qemu names it.
        emulation: the folder that `make arm` made.
        model: the model description, `model.json`.
        variant: name of the network's row.
        artifacts: its files, as for `as_made`.
        reference_artifacts: those of the FP32 network.
        annotations: COCO keypoint annotations of the people to predict for.
        images: folder of their images.
        detections: COCO detection results whose boxes are taken in place of the annotated ones.
        crops: where `keep_crops` wrote the people's crops; without, they are cut out of the images.
        flip_test: whether to average with the prediction for the mirrored crop.
        threads: how many cores of this machine work.
        workplace: folder for what is on the way; after an interruption it goes on from there.

    Returns:
        The predictions of the network there; the content of `comparison.json`, how far its values are from those here.

    Raises:
        InputError: an input is missing, damaged or does not fit the others; the emulation is missing or fails.
    """
    emulated, spec = Emulation.open(emulation), ModelSpec.load(model)
    emulated.require_same()
    made, reference_made = as_made(artifacts), as_made(reference_artifacts)
    int8, full = _pair(made), _pair(reference_made)
    ways = {"int8": Way(int8, "int8"), "winograd": Way(int8, "int8", int8_winograd=True), "fp32": Way(full, "fp32")}
    # What ncnn would crash on is found here.
    here = {name: ways[name].network(spec) for name in ("int8", "fp32")}
    here["unpacked"] = Way(int8, "int8", packing=False).network(spec)
    people = People(evaluation_instances(annotations, detections, spec.keypoints), images, crops)
    cut = people.cut(spec)
    # For a flip test the mirrored crops follow the others.
    given = np.concatenate([cut, cut[:, :, ::-1]]) if flip_test else cut
    some = Cropper(spec).normalise(cut[:PEOPLE_COMPARED])
    results = _Run(emulated, core, workplace, threads).results(spec, ways, given, len(some))
    outputs = results["int8"].outputs("int8", here["int8"])
    there = {
        "int8": [values[: len(some)] for values in outputs],
        "winograd": results["winograd"].outputs("winograd", here["int8"]),
        "fp32": results["fp32"].outputs("fp32", here["fp32"]),
    }
    identity = identify(
        spec=spec,
        variant=variant,
        backend="ncnn",
        precision="int8",
        instances=people.instances,
        flip_test=flip_test,
        made=made,
        files={"model": model, "annotations": annotations, "detections": detections},
        versions=emulated.versions,
    )
    comparison = {
        "core": core,
        "features": results["int8"].json("facts.json")["features"],
        "crops": len(some),
        **_differences({name: network.forward_on_threads(some, 1) for name, network in here.items()}, there),
        "crops_within": min(PEOPLE_WITHIN, len(some)),
        "layers": _layers(int8, here["int8"], results["int8"], some[:PEOPLE_WITHIN]),
        "sha256": {"artifact": identity["sha256"]["artifact"]},
        "versions": emulated.versions,
    }
    predictions = _predictions(people.instances, spec, outputs, flip_test, {**identity, "core": core})
    return predictions, comparison


def _pair(made: Mapping[Path, str]) -> tuple[Path, Path]:
    """Return the two files of an ncnn network."""
    param, weights = made
    return param, weights


@dataclass(frozen=True)
class _Run:
    """Runs of the runner on an emulated core."""

    emulation: Emulation
    core: str
    workplace: Path
    threads: int

    def results(
        self, spec: ModelSpec, ways: Mapping[str, Way], crops: NDArray[np.uint8], some: int
    ) -> dict[str, Result]:
        """Return the result that has each of the `ways`: all crops in INT8, and the first `some` in the others."""
        self.workplace.mkdir(parents=True, exist_ok=True)
        write_networks(self.workplace / "networks", spec, ways)
        write_people(self.workplace / "people.npz", crops)
        self._forget_other_jobs()
        others = [name for name in ways if name != "int8"]
        everyone = self._result("int8", len(crops), min(PEOPLE_WITHIN, some), ["int8"])
        few = self._result("others", some, 0, others)
        return {"int8": everyone, **dict.fromkeys(others, few)}

    def _forget_other_jobs(self) -> None:
        """Remove what an interrupted run left that had other networks or people, or another core or runner."""
        files = sha256(self.workplace / "networks/networks.json", self.workplace / "people.npz", RUNNER)
        job = "\n".join([files, self.core, *self.emulation.identity])
        note = self.workplace / "job.txt"
        if note.is_file() and note.read_text() != job:
            for path in self.workplace.glob("*.zip*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        note.write_text(job)

    def _result(self, name: str, people: int, within: int, rows: Sequence[str]) -> Result:
        target = self.workplace / f"{name}.zip"
        arguments: list[str | Path] = [
            *("--package", self.workplace / "networks", "--people", self.workplace / "people.npz"),
            *("--rows", *rows, "--limit", str(people), "--layers", str(within), "--threads", str(self.threads)),
        ]
        total = people * len(rows) + within
        if not target.is_file():
            self.emulation.run_job(self.core, arguments, target, people=people, total=total)
        result = Result(target)
        result.require_run(rows)
        return result


def _differences(here: Mapping[str, Sequence[Floats]], there: Mapping[str, Sequence[Floats]]) -> dict[str, Any]:
    """Return how far outputs are apart.

    Args:
        here: those on x86, of `int8`, `fp32`, and INT8 without channels side by side in memory, `unpacked`.
        there: those on ARM, of `int8`, `fp32`, and INT8 with Winograd's algorithm, `winograd`.
    """
    return {
        "to_x86": {
            "int8": asdict(compare(here["int8"], there["int8"])),
            "unpacked": asdict(compare(here["unpacked"], there["int8"])),
            "fp32": asdict(compare(here["fp32"], there["fp32"])),
        },
        "to_fp32": {
            "x86": asdict(compare(here["fp32"], here["int8"])),
            "arm": asdict(compare(here["fp32"], there["int8"])),
        },
        "winograd_on_and_off": agreement(there["winograd"], there["int8"]),
    }


def _layers(files: tuple[Path, Path], network: NcnnNetwork, result: Result, crops: Floats) -> list[dict[str, Any]]:
    model = NcnnModel.read(*files)
    blobs = compared_blobs(model)
    here = [dict(zip(blobs, network.activations(crop, blobs), strict=True)) for crop in crops]
    there = [result.layers("int8", person) for person in range(len(crops))]
    return [asdict(layer) for layer in layer_levels(model, here, there)]


def _predictions(
    instances: Instances, spec: ModelSpec, outputs: Sequence[Floats], flip_test: bool, identity: dict[str, Any]
) -> Predictions:
    if flip_test:
        halves = [np.split(values, 2) for values in outputs]
        outputs = average_with_mirrored([one for one, _ in halves], [other for _, other in halves], spec)
    return Predictions(
        ids=instances.ids,
        image_ids=instances.image_ids,
        bboxes=instances.bboxes,
        bbox_scores=instances.bbox_scores,
        poses=PoseReader(spec, instances).read(outputs, np.arange(len(instances))),
        identity=identity,
    )
