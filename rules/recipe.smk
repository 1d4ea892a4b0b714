# What makes INT8 better: the steps of a recipe, judged by the real INT8 network; and how many people it takes.


rule distillation_set:
    """Choose the training people to distill on; none of images of people who decide, tell or are evaluated on."""
    input:
        annotations=dataset("train", "annotations"),
        evaluation_annotations=dataset("val", "annotations"),
        calibration="results/{study}/calibration.json",
        keypoints=keypoints_file,
    output:
        DISTILLATION,
    log:
        "results/{study}/distillation-{people}.log",
    benchmark:
        "results/{study}/distillation-{people}.benchmark.tsv"
    wildcard_constraints:
        people=r"\d+",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        code=code("distillation_set"),
        settings=study_settings("calibration"),
        keypoints=keypoints_option,
    shell:
        'python "$SCRIPTS"/distillation_set.py --annotations {input.annotations:q}'
        " --evaluation-annotations {input.evaluation_annotations:q}"
        " --calibration {input.calibration}"
        " --people {wildcards.people} --seed {params.settings[seed]} {params.keypoints}"
        " --out {output} > {log} 2>&1"


rule distillation_crops:
    """Take from their images what crops of the people to distill on can see, shifted, scaled and turned."""
    input:
        model=f"{RESULTS}/model.json",
        chosen=DISTILLATION,
        images=distillation_images,
    output:
        directory(DISTILLATION_CROPS),
    log:
        f"{DISTILLATION_CROPS}.log",
    benchmark:
        f"{DISTILLATION_CROPS}.benchmark.tsv"
    wildcard_constraints:
        people=r"\d+",
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("distillation_crops"),
        images=chosen_images_state(DISTILLATION),
    shell:
        'python "$SCRIPTS"/distillation_crops.py --model {input.model}'
        " --people {input.chosen} --images {input.images:q}"
        " --threads {threads} --out {output} > {log} 2>&1"


rule apply_recipe:
    """Prepare the network for INT8 by the steps of the variant's recipe, and find its scales."""
    input:
        param=f"{RESULTS}/converted/ncnn-fp32.param",
        bin=f"{RESULTS}/converted/ncnn-fp32.bin",
        record=f"{RESULTS}/converted/ncnn-fp32.json",
        crops=f"{RESULTS}/calibration",
        distillation=distillation_crops,
        model=f"{RESULTS}/model.json",
        device=device_of_target,
    output:
        param=f"{RESULTS}/{{variant}}/prepared.param",
        bin=f"{RESULTS}/{{variant}}/prepared.bin",
        reference_param=f"{RESULTS}/{{variant}}/reference.param",
        reference_bin=f"{RESULTS}/{{variant}}/reference.bin",
        table=f"{RESULTS}/{{variant}}/model.table",
        record=f"{RESULTS}/{{variant}}/recipe.json",
        figure=report(
            f"{RESULTS}/{{variant}}/recipe.svg",
            category="Recipes",
            labels=ROW | {"form": "picture"},
        ),
        image=f"{RESULTS}/{{variant}}/recipe.png",
        page=f"{RESULTS}/{{variant}}/recipe.md",
        html=report(
            f"{RESULTS}/{{variant}}/recipe.html",
            category="Recipes",
            labels=ROW | {"form": "page"},
        ),
    log:
        f"{RESULTS}/{{variant}}/apply_recipe.log",
    benchmark:
        f"{RESULTS}/{{variant}}/apply_recipe.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(WITH_RECIPE),
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        code=code("apply_recipe"),
        recipe=recipe,
        target=target_options,
    shell:
        'python "$SCRIPTS"/apply_recipe.py --model {input.model} --param {input.param} --bin {input.bin}'
        " --record {input.record}"
        " --crops {input.crops} --distillation {input.distillation}"
        " --recipe {params.recipe:q} {params.target} --threads {threads}"
        " --out-param {output.param} --out-bin {output.bin}"
        " --out-reference-param {output.reference_param} --out-reference-bin {output.reference_bin}"
        " --out-table {output.table} --out-record {output.record}"
        " --out-figure {output.figure} --out-page {output.page} > {log} 2>&1"


rule curve:
    """Calibrate anew on several numbers and choices of people: AP, OKS to FP32 and thresholds."""
    input:
        model=f"{RESULTS}/model.json",
        param=f"{RESULTS}/converted/ncnn-fp32.param",
        bin=f"{RESULTS}/converted/ncnn-fp32.bin",
        train_annotations=dataset("train", "annotations"),
        train_images=dataset("train", "images"),
        annotations=evaluated_annotations,
        images=dataset("val", "images"),
        reference=fp32_predictions,
        device=device_of_target,
    output:
        table=f"{RESULTS}/{{variant}}/curve.csv",
        figure=report(
            f"{RESULTS}/{{variant}}/curve.svg",
            category="Calibration",
            labels=ROW | {"form": "picture"},
        ),
        image=f"{RESULTS}/{{variant}}/curve.png",
        page=f"{RESULTS}/{{variant}}/curve.md",
        html=report(
            f"{RESULTS}/{{variant}}/curve.html",
            category="Calibration",
            labels=ROW | {"form": "page"},
        ),
    log:
        f"{RESULTS}/{{variant}}/curve.log",
    benchmark:
        f"{RESULTS}/{{variant}}/curve.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(NCNN_INT8),
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        code=code("curve"),
        train_images=images_state("train"),
        images=images_state("val"),
        title="{model}, {variant}",
        settings=study_settings("curve"),
        recipe=recipe_or_method,
        target=target_options,
    shell:
        'python "$SCRIPTS"/curve.py --title {params.title:q}'
        " --people {params.settings[people]} --seeds {params.settings[seeds]}"
        " --recipe {params.recipe:q} {params.target} --model {input.model}"
        " --param {input.param} --bin {input.bin}"
        " --train-annotations {input.train_annotations:q}"
        " --train-images {input.train_images:q}"
        " --annotations {input.annotations:q} --images {input.images:q}"
        " --reference {input.reference} --threads {threads}"
        " --out-table {output.table} --out-figure {output.figure}"
        " --out-page {output.page} > {log} 2>&1"
