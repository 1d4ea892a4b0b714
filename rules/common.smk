# From the configuration to names: checks, wildcards and the helpers that rules use.

import json
import os
import re
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from posequant.base.errors import InputError
from posequant.base.openmmlab import find_config
from posequant.workflow.source_closure import source_closure
from posequant.workflow.sources import find_downloads, parse_source
from posequant.workflow.study_config import validate_config

# Jobs find the programs of this environment even where it is not activated.
os.environ["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ["PATH"]]
)

ENVIRONMENT = "../envs/posequant.yaml"
RESULTS = "results/{study}/{model}"
DOWNLOADS = "results/downloads"

try:
    validate_config(config, Path(workflow.basedir) / "rules/config.schema.yaml")
    downloads = list(find_downloads(config["studies"], "studies"))
except InputError as error:
    raise WorkflowError(str(error))


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


wildcard_constraints:
    study=any_of(config["studies"]),
    model=any_of(models_from("mmpose", "onnx")),
    variant=any_of(config["variants"]),


def code(script: str) -> list[str]:
    """The files that `scripts/{script}.py` is made of: an edit of any of them reruns the rule."""
    return [
        os.path.relpath(path)
        for path in source_closure(Path(workflow.basedir) / "scripts" / f"{script}.py")
    ]


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


def detections_option(wildcards, input) -> str:
    """Option that names the detector boxes, where the protocol takes them."""
    return f"--detections {input.detections}" if input.detections else ""


def onnx_settings(wildcards) -> str:
    """What the configuration says of an ONNX network's crops and output, as JSON."""
    settings = config["studies"][wildcards.study]["models"][wildcards.model]
    elsewhere = ("source", "architecture", "published", "onnx")
    return json.dumps(
        {key: value for key, value in settings.items() if key not in elsewhere}
    )


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
    """The variant beside which an INT8 variant is certified: FP32 in its runtime, one of the study if it has one."""
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
