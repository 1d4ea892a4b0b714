# What a study starts from.


rule demo_dataset:
    """Draw the images of synthetic people and write their annotations."""
    input:
        code=code("generate_demo_data"),
    output:
        train=directory("results/{study}/dataset/train"),
        val=directory("results/{study}/dataset/val"),
        train_annotations="results/{study}/dataset/annotations/person_keypoints_train.json",
        val_annotations="results/{study}/dataset/annotations/person_keypoints_val.json",
    log:
        "results/{study}/dataset.log",
    benchmark:
        "results/{study}/dataset.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        folder="results/{study}/dataset",
        settings=lookup("studies/{study}/dataset/synthetic", within=config),
    shell:
        "python scripts/generate_demo_data.py"
        " --train-images {params.settings[train_images]}"
        " --val-images {params.settings[val_images]}"
        " --seed {params.settings[seed]} --processes {threads}"
        " --out {params.folder} 2>&1 | tee {log}"
