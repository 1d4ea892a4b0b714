# From the configuration to names: checks, wildcards and the helpers that rules use.

import copy
import gc
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import update_config

# Where this workflow lies; the working folder may be another, and another workflow may include this one as a module.
ROOT = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(ROOT / "scripts"))

from posequant.base.errors import InputError
from posequant.workflow.costs import (
    DRAWN,
    Network,
    evaluated,
    input_pixels,
    measured_rows,
    network_of,
    number_of_shards,
    people_in,
    row_seconds,
    shards_in,
)
from posequant.workflow.ending import end_on_sigterm
from posequant.workflow.estimate import (
    Job,
    announcement,
    long_run,
    part_of,
    planned_job,
    size_of_study,
    work,
)
from posequant.workflow.keypoint_sets import is_file
from posequant.workflow.leftovers import notices as leftover_notices
from posequant.workflow.local_files import find_file, fingerprint
from posequant.workflow.settings.demo import DRAWN_KEYPOINTS
from posequant.workflow.settings.devices import CORES
from posequant.workflow.settings.quantize import METHODS
from posequant.workflow.slurm_queue import watch as watch_queue
from posequant.workflow.source_closure import sources_hash
from posequant.workflow.sources import find_downloads, parse_source
from posequant.workflow.study_config import validate_config
from posequant.workflow.terminal import install as install_terminal, summary
from posequant.workflow.yaml_files import check_yaml

# Jobs find the programs of this environment even where it is not activated, and the scripts from any working folder. No
# parameter or command names that folder: to move it must not rerun anything.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    SCRIPTS=str(ROOT / "scripts"),
)

# One line a job. A dry run, --verbose and a logger plugin say what they always say.
plain = workflow.output_settings.dryrun or workflow.output_settings.verbose
terminal = None if plain or not workflow.is_main_process else install_terminal(logger)

# A plan makes millions of objects and drops few. To look among them for cycles less often saves an eighth of its time.
gc.set_threshold(100_000, 50, 50)

ENVIRONMENT = "../envs/posequant.yaml"
RESULTS = "results/{study}/{model}"
# The part of a path that says which people are evaluated, where it is a subset; empty where it is all of them.
SUBSET = "people-{people}-seed-{seed}/"
DOWNLOADS = "results/downloads"
# Whom a recipe distills on, so many people; where their images are fetched to; and their crops.
DISTILLATION = "results/{study}/distillation-{people}.json"
DISTILLATION_IMAGES = "results/{study}/distillation_images-{people}"
DISTILLATION_CROPS = f"{RESULTS}/distillation-{{people}}"

# How `snakemake --report` names a page.
STUDY = {"study": "{study}"}
MODEL = {**STUDY, "model": "{model}"}
ROW = {**MODEL, "row": "{variant}"}

# What a working folder elsewhere says in its own config.yaml, or another workflow in the configuration that it gives this
# one as a module, goes on top of this workflow's own.
if Path("config.yaml").is_file() and not Path("config.yaml").samefile(
    ROOT / "config.yaml"
):

    configfile: "config.yaml"


if workflow.modifier.skip_configfile:
    given = copy.deepcopy(config)
    config.update(load_configfile(str(ROOT / "config.yaml")))
    update_config(config, given)

# A study may have a file of its own, as `zoo` has. What the configuration says of it as well goes on top.
own_file = ROOT / "studies" / f"{config.get('study')}.yaml"
own_files = [own_file] if own_file.is_file() else []
for file in own_files:
    given = copy.deepcopy(config)
    update_config(config, load_configfile(str(file)))
    update_config(config, given)

try:
    # On a worker they are those that the main process has checked.
    checked = [*workflow.configfiles, *own_files] if workflow.is_main_process else []
    for configuration in checked:
        check_yaml(Path(configuration))
    validate_config(config)
    downloads = list(find_downloads(config["studies"], "studies"))
except InputError as error:
    raise WorkflowError(str(error))


def any_of(names) -> str:
    """Regular expression that matches each of `names` and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"


def rows_of(study: str, model: str) -> list[str]:
    """The rows of a model in a study: all that the study lists, but for those it leaves out."""
    settings = config["studies"][study]
    left_out = settings["left_out"].get(model, {})
    return [
        row
        for row in settings["variants"]
        if not {"all", config["variants"][row]["backend"]} & left_out.keys()
    ]


def models_of(study: str) -> list[str]:
    """The models of a study that have rows."""
    return [
        model for model in config["studies"][study]["models"] if rows_of(study, model)
    ]


def models_from(*sources: str) -> list[str]:
    """Names of the models, of any study that runs them, whose source is one of `sources`."""
    return [
        model
        for study in config["studies"]
        for model in models_of(study)
        if config["studies"][study]["models"][model]["source"] in sources
    ]


def variants_with(**properties: str) -> list[str]:
    """Names of the variants that have all the given `properties`."""
    return [
        name
        for name, variant in config["variants"].items()
        if properties.items() <= variant.items()
    ]


# Those that ncnn runs in INT8: by the scales of ncnn2table, and by a recipe.
NCNN_INT8 = variants_with(backend="ncnn", precision="int8")
OFFICIAL = [
    variant
    for variant in NCNN_INT8
    if config["variants"][variant]["calibration"] in METHODS
]
WITH_RECIPE = [variant for variant in NCNN_INT8 if variant not in OFFICIAL]
# Those that run on a Vulkan device.
VULKAN = variants_with(backend="ncnn-vulkan")
# How many people each of the latter distills on, of those whose recipe has that step.
DISTILLED = {
    variant: step["distill"]["people"]
    for variant in WITH_RECIPE
    for step in config["recipes"][config["variants"][variant]["calibration"]]
    if "distill" in step
}
# Devices that are reached by ssh, and those that are emulated. On the others the runner is started by hand.
OVER_SSH = [name for name, device in config["devices"].items() if "ssh" in device]
EMULATED = [name for name, device in config["devices"].items() if "core" in device]
SHIPPED = [
    name
    for name, variant in config["variants"].items()
    if variant["backend"] != "pytorch"
]
REDUCED = [
    name
    for name, variant in config["variants"].items()
    if variant["precision"] != "fp32"
]


wildcard_constraints:
    study=any_of(config["studies"]),
    model=any_of(models_from("mmpose", "onnx", "ncnn")),
    variant=any_of(config["variants"]),
    subset=r"(?:people-\d+-seed-\d+/)?",


@cache
def code(script: str) -> str:
    """Hash of the files that `scripts/{script}.py` is made of: as a parameter, an edit of any of them reruns the rule."""
    return sources_hash(ROOT / "scripts" / f"{script}.py")


def growing(first: int):
    """Resource: `first`, and as much again on each retry."""

    def amount(wildcards, attempt) -> int:
        return first * attempt

    return amount
