# From the configuration to names: checks, wildcards and the helpers that rules use.

import json
import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from posequant.base.errors import InputError
from posequant.base.files import require_file
from posequant.base.openmmlab import find_config
from posequant.workflow.settings.quantize import METHODS
from posequant.workflow.source_closure import sources_hash
from posequant.workflow.sources import find_downloads, parse_source
from posequant.workflow.study_config import validate_config
from posequant.workflow.leftovers import describe_leftovers
from posequant.workflow.terminal import install as install_terminal, summary

# Jobs find the programs of this environment even where it is not activated.
os.environ["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ["PATH"]]
)

# One line a job. A dry run, --verbose and a logger plugin say what they always say.
plain = workflow.dryrun or workflow.output_settings.verbose
terminal = None if plain or not workflow.is_main_process else install_terminal(logger)

ENVIRONMENT = "../envs/posequant.yaml"
RESULTS = "results/{study}/{model}"
DOWNLOADS = "results/downloads"

try:
    validate_config(config)
    downloads = list(find_downloads(config["studies"], "studies"))
except InputError as error:
    raise WorkflowError(str(error))

DETECTIONS_HINT = (
    "Detector boxes are not downloaded. Those of COCO val2017 (COCO_val2017_detections_AP_H_56_person.json, 104,125"
    " boxes) are offered for download by hand, from OneDrive and Google Drive, at"
    " https://mmpose.readthedocs.io/en/latest/dataset_zoo/2d_body_keypoint.html#coco. Place the file at that path, or"
    " name another in the study's dataset.detections, or evaluate with protocol: {boxes: ground-truth}."
)


def any_of(names) -> str:
    """Regular expression that matches each of `names` and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"


def models_from(*sources: str) -> list[str]:
    """Names of the models, of any study, whose source is one of `sources`."""
    return [
        model
        for study in config["studies"].values()
        for model, settings in study["models"].items()
        if settings["source"] in sources
    ]


def variants_with(**properties: str) -> list[str]:
    """Names of the variants that have all the given `properties`."""
    return [
        name
        for name, variant in config["variants"].items()
        if properties.items() <= variant.items()
    ]


OFFICIAL = [
    variant
    for method in METHODS
    for variant in variants_with(backend="ncnn", precision="int8", calibration=method)
]
WITH_RECIPE = [
    variant
    for variant in variants_with(backend="ncnn", precision="int8")
    if variant not in OFFICIAL
]
REDUCED = [
    name
    for name, variant in config["variants"].items()
    if variant["precision"] != "fp32"
]


wildcard_constraints:
    study=any_of(config["studies"]),
    model=any_of(models_from("mmpose", "onnx")),
    variant=any_of(config["variants"]),


@cache
def code(script: str) -> str:
    """Hash of the files that `scripts/{script}.py` is made of: as a parameter, an edit of any of them reruns the rule."""
    path = Path(workflow.basedir) / "scripts" / f"{script}.py"
    return sources_hash(path)


def located(source: str) -> str:
    """Where a file or folder lies that the configuration names by its path or address."""
    download = parse_source(source)
    return f"{DOWNLOADS}/{download.content}" if download else source


def model_file(key: str):
    """Input function: the `config`, `checkpoint` or `onnx` of a model."""

    def path(wildcards) -> str:
        source = config["studies"][wildcards.study]["models"][wildcards.model][key]
        # A config may go by the name under which mmpose ships it.
        return str(find_config(Path(source))) if key == "config" else located(source)

    return path


def dataset(split: str, part: str):
    """Input function: the `images` or `annotations` of a `split` of the study's dataset."""

    def path(wildcards) -> str:
        source = config["studies"][wildcards.study]["dataset"]
        folder = f"results/{wildcards.study}/dataset"
        if "synthetic" not in source:
            # Training images that are not named are fetched, those that calibration needs.
            fetched = f"results/{wildcards.study}/calibration_images"
            return located(source[split][part]) if part in source[split] else fetched
        annotations = f"{folder}/annotations/person_keypoints_{split}.json"
        return annotations if part == "annotations" else f"{folder}/{split}"

    return path


def detections(wildcards) -> list[str]:
    """Input function: the detector boxes, where the protocol takes them."""
    study = config["studies"][wildcards.study]
    if study["protocol"]["boxes"] == "ground-truth":
        return []
    source = study["dataset"]["detections"]
    if not parse_source(source):
        require_file(Path(source), DETECTIONS_HINT)
    return [located(source)]


def detections_option(wildcards, input) -> str:
    """Option that names the detector boxes, where the protocol takes them."""
    return f"--detections {input.detections}" if input.detections else ""


def artifact(wildcards) -> list[str]:
    """Input function: the files that the variant's backend loads."""
    return artifact_of(wildcards.variant, wildcards)


def artifact_of(variant: str, wildcards) -> list[str]:
    """The files that a variant's backend loads, of the wildcards' model."""
    folder = RESULTS.format(**wildcards)
    match config["variants"][variant]:
        case {"backend": "onnxruntime", "precision": "int8"}:
            return [f"{folder}/{variant}/model.onnx"]
        case {"backend": "openvino", "precision": "int8"}:
            return multiext(f"{folder}/{variant}/model", ".xml", ".bin")
        case {"backend": "pytorch"}:
            return [model_file(key)(wildcards) for key in ("config", "checkpoint")]
        case {"backend": "onnxruntime"}:
            return [f"{folder}/onnx/simplified.onnx"]
        case {"backend": "openvino"}:
            return multiext(f"{folder}/converted/openvino", ".xml", ".bin")
        case {"precision": "int8"}:
            return multiext(f"{folder}/{variant}/model", ".param", ".bin")
        case {"precision": precision}:
            # bf16 is what the runtime makes of the fp32 weights when it loads them.
            weights = "fp16" if precision == "fp16" else "fp32"
            return multiext(f"{folder}/converted/ncnn-{weights}", ".param", ".bin")


def fp32_variant(wildcards) -> str:
    """The variant beside which one in reduced precision is certified: FP32 in its runtime, one of the study if it has one."""
    backend = config["variants"][wildcards.variant]["backend"]
    candidates = variants_with(backend=backend, precision="fp32")
    listed = config["studies"][wildcards.study]["variants"]
    if not candidates:
        raise WorkflowError(
            f"variants: {wildcards.variant} is certified beside {backend} in fp32; add a variant that is"
        )
    return min(candidates, key=lambda variant: variant not in listed)


def fp32_predictions(wildcards) -> str:
    """Input function: what the same runtime predicts in FP32."""
    return f"{RESULTS.format(**wildcards)}/{fp32_variant(wildcards)}/predictions.npz"


def fp32_artifact(wildcards) -> list[str]:
    """Input function: the files of the FP32 network in the same runtime."""
    return artifact_of(fp32_variant(wildcards), wildcards)


def official_tool(name: str) -> str:
    """Option that hands a step to the official program, where the configuration or PATH names it."""
    choice = config["tools"][name]
    program = {"builtin": None, "auto": shutil.which(name)}.get(choice, choice)
    return f"--tool {program}" if program else ""


def per_row(name: str, **properties: str):
    """Input function: the file `name` of every row of a study, or of those with the `properties`."""

    def paths(wildcards) -> list[str]:
        study = config["studies"][wildcards.study]
        return expand(
            "results/{study}/{model}/{variant}/" + name,
            study=wildcards.study,
            model=study["models"],
            variant=[
                variant
                for variant in study["variants"]
                if variant in variants_with(**properties)
            ],
        )

    return paths


def per_model(name: str):
    """Input function: the file `name` of every model of a study."""

    def paths(wildcards) -> list[str]:
        return expand(
            "results/{study}/{model}/" + name,
            study=wildcards.study,
            model=config["studies"][wildcards.study]["models"],
        )

    return paths


def certificates(wildcards) -> list[str]:
    """Input function: the certificates of the rows of a study that are in reduced precision."""
    paths = per_row("certificate.json")(wildcards)
    return [path for path in paths if Path(path).parent.name in REDUCED]


def recipe_pages(wildcards) -> list[str]:
    """Input function: the pages of the recipes that rows of a study were made by."""
    pages = per_row("recipe.md", backend="ncnn", precision="int8")(wildcards)
    return [page for page in pages if Path(page).parent.name in WITH_RECIPE]


def architectures(wildcards) -> list[str]:
    """The name of each model of a study in the Arch column."""
    models = config["studies"][wildcards.study]["models"]
    return [settings.get("architecture", model) for model, settings in models.items()]


def published(wildcards) -> str:
    """The published figures of each model of a study, as JSON."""
    models = config["studies"][wildcards.study]["models"]
    return json.dumps([settings.get("published", []) for settings in models.values()])
