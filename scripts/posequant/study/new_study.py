"""From a network and some annotated people to the file of a first study."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from posequant.base.errors import InputError
from posequant.base.files import require_file
from posequant.base.keypoints import KeypointSet
from posequant.base.measures import Measure, measure_for
from posequant.base.model_index import find_network
from posequant.data.dataset import Annotations, load_annotations
from posequant.export.describe import describe_mmpose
from posequant.export.import_ncnn import Source
from posequant.study.candidates import Normalisation, normalisations, readings, triple
from posequant.study.opened import Opened, open_ncnn, open_onnx
from posequant.study.study_file import (
    LEAST,
    default_rows,
    findings,
    model_settings,
    name_from,
    named_model,
    text_of,
    time_of,
    write_study,
)
from posequant.study.trial import LabelledPeople, Outcome, Trial, try_all
from posequant.workflow.costs import network_of, people_in
from posequant.workflow.keypoint_sets import find_keypoints, known_sets

_FILES = (".onnx", ".param")
# Where the workflow's own study of COCO takes people to calibrate on.
_COCO_TRAIN = ("studies", "coco", "dataset", "train")
# So many people are worth a quick answer first.
_MANY, _QUICK = 1000, 500


@dataclass(frozen=True)
class Wanted:
    """What the user says, option by option of `new_study.py`."""

    network: str
    images: str
    annotations: str
    keypoints: str | None = None
    train_images: str | None = None
    train_annotations: str | None = None
    name: str | None = None
    variants: list[str] | None = None
    checkpoint: str | None = None
    bin: Path | None = None
    input: str | None = None
    decoded: list[str] | None = None
    input_size: list[int] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    bgr: bool = False
    padding: float = 1.25
    dark: bool = False
    people: int = 48
    seed: int = 0
    threads: int = 1
    out: Path | None = None


def new_study(wanted: Wanted, workflow: Path) -> str:
    """Write the file of a study of a network.

    Args:
        wanted: what the user says.
        workflow: the folder of the workflow, with its config.yaml.

    Returns:
        What was found, and the commands to run.

    Raises:
        InputError: a file is missing or damaged; the network is not one that a study can have; something is to be said
            by an option, which the message names; the study is not valid.
    """
    _require_sensible(wanted)
    shipped = yaml.safe_load(require_file(workflow / "config.yaml").read_text(encoding="utf-8"))
    annotations = _annotations(wanted)
    file = Path(wanted.network)
    name = name_from(wanted.name or (file.stem if file.suffix in _FILES else wanted.network))
    target = wanted.out or Path(f"{name}.yaml")
    if target.exists():  # before anything takes time
        raise InputError(f"{target}: is there already. Remove it, or name another file by --out.")
    model: dict[str, Any] | str
    if file.suffix in _FILES:
        opened = _opened(wanted, file, annotations.keypoints)
        said, model = _tried(wanted, opened, annotations)
        width, height = opened.spec.input_size
        network = network_of(weights=opened.weights, pixels=width * height, gmac=None)
    else:
        model, said, network = _of_mmpose(wanted, annotations.keypoints), [], None
    source = "mmpose" if isinstance(model, str) else str(model["source"])
    train, advice = _training_split(wanted, shipped)
    content = {
        "study": name,
        "studies": {
            name: {
                "dataset": {
                    "train": train,
                    "val": {"images": wanted.images, "annotations": wanted.annotations},
                    **({"keypoints": wanted.keypoints} if wanted.keypoints else {}),
                },
                "models": {name: model},
                "variants": wanted.variants or default_rows(source),
            }
        },
    }
    first = f"A first study of {wanted.network}. docs/configuration.md describes the keys."
    config = write_study(target, text_of(content, [first, *said, advice]), shipped, workflow)
    people, cores = people_in(Path(wanted.annotations), None) or 0, os.cpu_count() or 1
    time = time_of(config, name, network, people, cores) if network else None
    return "\n\n".join([*said, advice, _commands(name, target, people, time)])


def _require_sensible(wanted: Wanted) -> None:
    if wanted.people < 2:
        raise InputError(f"--people {wanted.people}: try at least 2")
    if wanted.threads < 1:
        raise InputError(f"--threads {wanted.threads}: at least 1")
    if wanted.padding < 1:
        raise InputError(f"--padding {wanted.padding}: at least 1, which takes the box as it is")
    if (wanted.mean is None) != (wanted.std is None):
        raise InputError("--mean and --std belong together; give both, or neither to have the likely ones tried")
    if wanted.bgr and wanted.mean is None:
        raise InputError("--bgr belongs to --mean and --std; without them, both orders of channels are tried")
    if wanted.std and min(wanted.std) <= 0:
        raise InputError(f"--std {wanted.std}: each must be above 0")
    if wanted.input_size and min(wanted.input_size) < 1:
        raise InputError(f"--input-size {wanted.input_size}: width and height are at least 1 pixel")
    if wanted.train_images and not wanted.train_annotations:
        raise InputError("--train-images needs the annotations of these images; give --train-annotations")


def _annotations(wanted: Wanted) -> Annotations:
    """Return the annotations to try on, with their set of keypoints."""
    path = Path(wanted.annotations)
    annotations = load_annotations(path, find_keypoints(wanted.keypoints) if wanted.keypoints else None)
    if annotations.keypoints.is_known:
        return annotations
    count = len(annotations.keypoints)
    alike = [name for name in known_sets() if len(find_keypoints(name)) == count]
    raise InputError(
        f"{path}: people have {count} keypoints, which are not COCO's. Say which by --keypoints: a file that names "
        "them, or the name of a set that mmpose ships"
        + (f", of which {', '.join(alike)} have as many." if alike else ".")
    )


def _opened(wanted: Wanted, file: Path, keypoints: KeypointSet) -> Opened:
    """Return the user's network for these keypoints, opened."""
    if file.suffix == ".param":
        weights = wanted.bin or file.with_suffix(".bin")
        require_file(file)
        require_file(weights, "It has the weights; name it by --bin.")
        size = (wanted.input_size[0], wanted.input_size[1]) if wanted.input_size else None
        opened = open_ncnn(Source(file, weights, wanted.input, wanted.decoded), size)
    else:
        opened = open_onnx(file)
        if wanted.input_size and tuple(wanted.input_size) != opened.spec.input_size:
            raise InputError(
                f"{file}: takes crops of {opened.spec.input_size} (width, height), not --input-size {wanted.input_size}"
            )
    return replace(opened, spec=replace(opened.spec, padding=wanted.padding, keypoints=keypoints))


def _tried(wanted: Wanted, opened: Opened, annotations: Annotations) -> tuple[list[str], dict[str, Any]]:
    """Return what the trial found in words, and the keys of the model."""
    size = opened.spec.input_size
    possible = readings(opened.output_shapes, size, str(opened.file), annotations.keypoints)
    known = normalisations()
    if wanted.mean and wanted.std:
        known = [Normalisation("given", triple(wanted.mean), triple(wanted.std), to_rgb=not wanted.bgr)]
    people = LabelledPeople.choose(annotations, wanted.people, wanted.seed)
    trial = Trial(opened.network, opened.spec, people, Path(wanted.images), threads=wanted.threads)
    outcome = try_all(trial, known, possible, dark=wanted.dark)
    measure = measure_for(annotations.keypoints.sigmas)
    _require_a_fit(outcome, measure, wanted, opened.file)
    maps = "heatmaps" if len(opened.output_shapes) == 1 else "SimCC vectors"
    shapes = " and ".join("x".join(map(str, shape)) for shape in opened.output_shapes)
    said = [f"The network takes 3x{size[1]}x{size[0]} (channels, height, width) and gives {maps}, {shapes}."]
    if len(opened.output_shapes) == 1:
        said[0] += f" Their stride is {size[0] / opened.output_shapes[0][2]:g}."
    said += findings(outcome, f"{len(people.instances)} people of {wanted.annotations} (seed {wanted.seed})", measure)
    return said, opened.settings | model_settings(outcome, size, wanted.padding)


def _require_a_fit(outcome: Outcome, measure: Measure, wanted: Wanted, file: Path) -> None:
    best = outcome.attempts[0]
    if best.mean_oks < LEAST[measure] and wanted.mean is None:
        found = measure.said(f"a mean OKS of {best.mean_oks:.2f}")
        raise InputError(
            f"{file}: with none of the usual normalisations and codecs are the poses right; the best, "
            f"{best.normalisation.name} and {best.reading.name}, has {found}. If you know the normalisation, give "
            "--mean and --std (of pixels of 0 to 255), and --bgr. Otherwise the network may not be top-down, or have "
            "other keypoints than the annotations."
        )


def _of_mmpose(wanted: Wanted, keypoints: KeypointSet) -> dict[str, Any] | str:
    """Return the keys of a network of mmpose, or its name where that is enough."""
    name = wanted.network
    if name.endswith((".pth", ".pt", ".bin", ".tflite", ".xml")):
        raise InputError(f"{name}: give an .onnx file, ncnn's .param, or the name of a config of mmpose")
    if not wanted.checkpoint and (short := named_model(name)):
        describe_mmpose(name, find_network(short).config or name, keypoints)
        return short
    describe_mmpose(name, name, keypoints)
    if not wanted.checkpoint:
        raise InputError(f"{name}: give the path or address of its weights by --checkpoint")
    return {"source": "mmpose", "config": name, "checkpoint": wanted.checkpoint}


def _training_split(wanted: Wanted, shipped: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Return the people to calibrate on, and what is said of them."""
    if wanted.train_annotations:
        images = {"images": wanted.train_images} if wanted.train_images else {}
        split = {**images, "annotations": wanted.train_annotations}
        return split, "INT8 is calibrated on people of dataset.train, none of whom may be evaluated on."
    if wanted.keypoints:
        raise InputError(
            "INT8 is calibrated on people of a training split, with the same keypoints. Give it by --train-images and "
            "--train-annotations."
        )
    train: Any = shipped
    for key in _COCO_TRAIN:
        train = train[key]
    return dict(train), (
        "To fill in: INT8 is calibrated on people of dataset.train, who must not be among those that are evaluated. "
        "Without --train-images and --train-annotations they are COCO's, fetched from the internet: 253 MB of "
        "annotations, and an image for each person. Put in a folder and annotations of your own instead, of images "
        "like those that the network was trained on."
    )


def _commands(name: str, target: Path, people: int, time: str | None) -> str:
    run = f"snakemake -c all --configfile {target}"
    duration = f", about {time} here beside downloads" if time else ""
    said = f"Wrote {target}. Run it{duration}:\n\n  {run}\n"
    if people > _MANY:
        said += f"\nFor a quick answer first, on some of the {people:,} people:\n\n  {run} --config people={_QUICK}\n"
    return f"{said}\nThe page is results/{name}/result.md."
