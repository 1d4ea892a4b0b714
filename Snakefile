# PoseQuant: from a pose network's checkpoint to a table that says what each backend scores.

from snakemake.utils import min_version

min_version("9.0")


report: "docs/workflow.rst"


configfile: workflow.current_basedir.join("config.yaml").get_path_or_uri(secret_free=True)


include: "rules/common.smk"
include: "rules/inputs.smk"
include: "rules/plan.smk"
include: "rules/demo.smk"
include: "rules/fetch.smk"
include: "rules/data.smk"
include: "rules/export.smk"
include: "rules/quantize.smk"
include: "rules/evaluate.smk"
include: "rules/recipe.smk"
include: "rules/certify.smk"
include: "rules/attribute.smk"
include: "rules/benchmark.smk"
include: "rules/devices.smk"
include: "rules/report.smk"
include: "rules/ship.smk"
include: "rules/prune.smk"


rule all:
    """The result of the study that `study` names."""
    default_target: True
    input:
        "results/result.md",
