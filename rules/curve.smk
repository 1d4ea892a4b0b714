# How much INT8 depends on whom it is calibrated on. On request only: nothing else reads it.


def recipe_or_method(wildcards) -> str:
    """How the variant is calibrated: the name of a method of ncnn2table, or the steps of a recipe as JSON."""
    if wildcards.variant in OFFICIAL:
        return config["variants"][wildcards.variant]["calibration"]
    return recipe(wildcards)


rule calibration_curve:
    """Calibrate anew on several numbers and choices of people: AP, OKS to FP32 and thresholds."""
    input:
        model=f"{RESULTS}/model.json",
        param=f"{RESULTS}/converted/ncnn-fp32.param",
        bin=f"{RESULTS}/converted/ncnn-fp32.bin",
        train_annotations=dataset("train", "annotations"),
        train_images=dataset("train", "images"),
        annotations=dataset("val", "annotations"),
        images=dataset("val", "images"),
        reference=fp32_predictions,
        code=code("curve"),
    output:
        table=f"{RESULTS}/{{variant}}/curve.csv",
        figure=report(f"{RESULTS}/{{variant}}/curve.svg", category="Calibration"),
        page=report(f"{RESULTS}/{{variant}}/curve.md", category="Calibration"),
    log:
        f"{RESULTS}/{{variant}}/curve.log",
    benchmark:
        f"{RESULTS}/{{variant}}/curve.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(variants_with(backend="ncnn", precision="int8")),
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        settings=lookup("studies/{study}/curve", within=config),
        recipe=recipe_or_method,
    shell:
        "python scripts/curve.py --title '{wildcards.model}, {wildcards.variant}'"
        " --people {params.settings[people]} --seeds {params.settings[seeds]}"
        " --recipe {params.recipe:q} --model {input.model}"
        " --param {input.param} --bin {input.bin}"
        " --train-annotations {input.train_annotations}"
        " --train-images {input.train_images}"
        " --annotations {input.annotations} --images {input.images}"
        " --reference {input.reference} --threads {threads}"
        " --table {output.table} --figure {output.figure}"
        " --markdown {output.page} 2>&1 | tee {log}"
