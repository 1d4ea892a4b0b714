"""The checks of config.yaml: each setting by itself, and where one refers to another."""

from collections.abc import Iterator
from typing import Any, get_args

from posequant.base.errors import InputError
from posequant.workflow.keypoint_sets import find_keypoints, is_file, known_sets
from posequant.workflow.named_models import filled_from_index
from posequant.workflow.settings.base import checked, nearest, not_valid
from posequant.workflow.settings.config import CocoDataset, Config, NamedModel, Study, Variant
from posequant.workflow.settings.precisions import NCNN, TITLES
from posequant.workflow.settings.quantize import METHODS
from posequant.workflow.settings.recipe import Target


def validate_config(config: dict[str, Any]) -> None:
    """Check a configuration and fill in what it leaves to defaults and to mmpose's model index, in place.

    The key `people` goes into the studies.

    Raises:
        InputError: with every fault found: the key's path, what is wrong and, for an unknown key, the nearest known
            one.
    """
    what = "the configuration"
    settings = checked(Config, config, what=what)
    if faults := list(_broken_references(settings)):
        raise not_valid(what, faults)
    filled = settings.filled()
    if people := filled.pop("people", None):
        for study in filled["studies"].values():
            study["dataset"]["val"]["people"] = people
    config.pop("people", None)
    config.update(filled)
    for name, study in settings.studies.items():
        for model, network in study.models.items():
            if isinstance(network, NamedModel) and _is_run(study, model):
                full = filled_from_index(network, study, settings.variants)
                config["studies"][name]["models"][model] = full.filled()


def _broken_references(config: Config) -> Iterator[str]:
    if config.study not in config.studies:
        yield f"study: there is no study '{config.study}'{nearest(config.study, config.studies)}"
    for name, variant in config.variants.items():
        known = [*METHODS, *config.recipes]
        if variant.calibration is not None and variant.calibration not in known:
            place = f"variants.{name}.calibration"
            yield f"{place}: there is no recipe '{variant.calibration}'{nearest(variant.calibration, known)}"
    precisions = {(variant.backend, variant.precision) for variant in config.variants.values()}
    for backend in sorted({backend for backend, _ in precisions}):
        if (backend, "fp32") not in precisions:
            yield (
                f"variants: those of {backend} are compared with {backend} in fp32, which is missing; add a variant "
                f"{{backend: {backend}, precision: fp32}}"
            )
    sources: dict[str, str] = {}
    for name, study in config.studies.items():
        yield from _broken_references_of(f"studies.{name}", study, config)
        for model, network in study.models.items():
            if sources.setdefault(model, network.source) != network.source:
                yield f"studies.{name}.models.{model}: the same name has another source in another study; rename it"


def _int8_of_nothing(place: str, name: str, config: Config) -> Iterator[str]:
    """Yield what is wrong with the row `name` of a study, if it runs the INT8 of a variant that is not there."""
    variant = config.variants[name]
    made = {one.calibration for one in config.variants.values() if one.backend == "ncnn"}
    if variant.backend == "ncnn-vulkan" and variant.calibration not in made | {None}:
        yield (
            f"{place}: '{name}' runs on Vulkan what a variant of ncnn runs on the CPU, and there is none with "
            f"calibration '{variant.calibration}'; add {{backend: ncnn, precision: int8, calibration: "
            f"{variant.calibration}}} to the variants"
        )


def _broken_references_of(place: str, study: Study, config: Config) -> Iterator[str]:
    for name in study.variants:
        if name not in config.variants:
            yield f"{place}.variants: no variant '{name}'{nearest(name, config.variants)}"
        else:
            yield from _int8_of_nothing(f"{place}.variants", name, config)
            yield from _rows_without_a_network(f"{place}.variants", name, study, config.variants[name].backend)
    for name in study.devices:
        if name not in config.devices:
            hint = nearest(name, config.devices) if config.devices else ""
            yield f"{place}.devices: there is no device '{name}' in devices{hint}"
    known = [*get_args(Target), *config.devices]
    if study.target not in known:
        yield f"{place}.target: there is no target and no device '{study.target}'{nearest(study.target, known)}"
    elif (device := config.devices.get(study.target)) and device.target is None and device.ssh is None:
        yield f"{place}.target: device '{study.target}' cannot be asked what it is; give devices.{study.target}.target"
    for name in study.attribution:
        if name not in study.variants:
            yield f"{place}.attribution: '{name}' is no row of the study{nearest(name, study.variants)}"
        elif name in config.variants and not _is_ncnn_int8(config.variants[name]):
            yield f"{place}.attribution: '{name}' is not INT8 in ncnn; only such rows are attributed to their layers"
    if study.protocol.boxes == "detections" and not (
        isinstance(study.dataset, CocoDataset) and study.dataset.detections
    ):
        yield (
            f"{place}.protocol.boxes: 'detections' needs the file {place}.dataset.detections; name it, or evaluate on "
            "ground-truth boxes"
        )
    yield from _unknown_keypoints(place, study)
    for model in study.left_out:
        if model not in study.models:
            yield f"{place}.left_out: no model '{model}'{nearest(model, study.models)}"
    for model, network in study.models.items():
        if isinstance(network, NamedModel) and _is_run(study, model):
            try:
                filled_from_index(network, study, config.variants)
            except InputError as error:
                yield f"{place}.models.{model}: {error}"
        for number, entry in enumerate(network.published):
            for name in entry.variants:
                if name not in config.variants:
                    where = f"{place}.models.{model}.published.{number}.variants"
                    yield f"{where}: no variant '{name}'{nearest(name, config.variants)}"


def _rows_without_a_network(place: str, name: str, study: Study, backend: str) -> Iterator[str]:
    """Yield what is wrong with the row `name` of a study, for each model that the row's `backend` cannot load."""
    for model, network in study.models.items():
        if {"all", backend} & study.left_out.get(model, {}).keys():
            continue
        if network.source == "onnx" and backend == "pytorch":
            yield f"{place}: '{name}' runs in PyTorch, but model '{model}' is an ONNX file; remove the variant"
        elif network.source == "ncnn" and backend not in NCNN:
            yield (
                f"{place}: '{name}' runs in {TITLES[backend]}, but model '{model}' is ncnn's files, which no other "
                "runtime loads; remove the variant, or give the model a study of its own"
            )


def _is_run(study: Study, model: str) -> bool:
    """Whether a study runs any row of a model. Of one that it leaves out, nothing more than its name need be known."""
    return "all" not in study.left_out.get(model, {})


def _unknown_keypoints(place: str, study: Study) -> Iterator[str]:
    # Where mmpose is not installed beside Snakemake, the first step looks; and so it does into files.
    if isinstance(study.dataset, CocoDataset) and not is_file(study.dataset.keypoints) and known_sets():
        try:
            keypoints = find_keypoints(study.dataset.keypoints)
        except InputError as error:
            yield f"{place}.dataset.keypoints: {error}"
            return
        if keypoints.sigmas is None and study.protocol.boxes == "detections":
            yield (
                f"{place}.protocol.boxes: the keypoints {keypoints.name} have no sigmas, and are measured in annotated "
                "boxes only; choose ground-truth"
            )


def _is_ncnn_int8(variant: Variant) -> bool:
    return (variant.backend, variant.precision) == ("ncnn", "int8")
