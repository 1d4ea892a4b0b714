# Whom to calibrate on, and what the networks see of people.

CROPS = f"{RESULTS}/crops/{{subset}}{{shard}}-of-{{shards}}"


rule calibration_set:
    """Choose the training people to calibrate on; refuse any that are in the evaluation set."""
    input:
        annotations=dataset("train", "annotations"),
        evaluation_annotations=dataset("val", "annotations"),
        keypoints=keypoints_file,
    output:
        "results/{study}/calibration.json",
    log:
        "results/{study}/calibration_set.log",
    benchmark:
        "results/{study}/calibration_set.benchmark.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        code=code("calibration_set"),
        settings=study_settings("calibration"),
        keypoints=keypoints_option,
    shell:
        'python "$SCRIPTS"/calibration_set.py --annotations {input.annotations:q}'
        " --evaluation-annotations {input.evaluation_annotations:q}"
        " --people {params.settings[people]} --seed {params.settings[seed]} {params.keypoints}"
        " --out {output} > {log} 2>&1"


rule calibration_crops:
    """Crop the chosen people by the model's own test pipeline: the tensors that the network sees."""
    input:
        model=f"{RESULTS}/model.json",
        calibration="results/{study}/calibration.json",
        images=dataset("train", "images"),
    output:
        directory(f"{RESULTS}/calibration"),
    log:
        f"{RESULTS}/calibration_crops.log",
    benchmark:
        f"{RESULTS}/calibration_crops.benchmark.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        code=code("calibration_crops"),
        images=chosen_images_state("results/{study}/calibration.json"),
    shell:
        'python "$SCRIPTS"/calibration_crops.py --model {input.model}'
        " --calibration {input.calibration} --images {input.images:q}"
        " --out {output} > {log} 2>&1"


rule evaluation_people:
    """Choose images of the evaluation set that hold so many people: a subset, for a quick answer."""
    input:
        annotations=dataset("val", "annotations"),
        keypoints=keypoints_file,
    output:
        "results/{study}/people-{people}-seed-{seed}/annotations.json",
    log:
        "results/{study}/people-{people}-seed-{seed}/evaluation_people.log",
    wildcard_constraints:
        people=r"\d+",
        seed=r"\d+",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        code=code("evaluation_people"),
        keypoints=keypoints_option,
    shell:
        'python "$SCRIPTS"/evaluation_people.py --annotations {input.annotations:q}'
        " --people {wildcards.people} --seed {wildcards.seed} {params.keypoints}"
        " --out {output} > {log} 2>&1"


rule evaluation_crops:
    """Crop the people of one shard of the evaluation set, once for all variants of the model.

    They stay: as temporary files they would make a changed variant rerun all others.
    """
    input:
        unpack(evaluation_set),
        model=f"{RESULTS}/model.json",
    output:
        directory(CROPS),
    log:
        f"{CROPS}.log",
    benchmark:
        f"{CROPS}.benchmark.tsv"
    wildcard_constraints:
        shard=r"\d+",
        shards=r"\d+",
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("evaluation_crops"),
        images=images_state("val"),
        settings=study_settings("crops"),
    shell:
        'python "$SCRIPTS"/evaluation_crops.py --model {input.model}'
        " --annotations {input.annotations:q} --images {input.images:q} --detections {input.detections:q}"
        " --limit-gb {params.settings[limit_gb]}"
        " --shard {wildcards.shard} --shards {wildcards.shards}"
        " --threads {threads} --out {output} > {log} 2>&1"
