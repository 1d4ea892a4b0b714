# People or hands to draw, where a study has no dataset of its own.


rule demo_dataset:
    """Draw the images of synthetic people or hands and write their annotations."""
    output:
        train=directory("results/{study}/dataset/train"),
        val=directory("results/{study}/dataset/val"),
        train_annotations="results/{study}/dataset/annotations/person_keypoints_train.json",
        val_annotations="results/{study}/dataset/annotations/person_keypoints_val.json",
    log:
        "results/{study}/demo_dataset.log",
    benchmark:
        "results/{study}/demo_dataset.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        code=code("demo_dataset"),
        folder=subpath(output.train, parent=True),
        settings=study_settings("dataset", "synthetic"),
    shell:
        'python "$SCRIPTS"/demo_dataset.py'
        " --kind {params.settings[kind]}"
        " --train-images {params.settings[train_images]}"
        " --val-images {params.settings[val_images]}"
        " --seed {params.settings[seed]} --processes {threads}"
        " --out {params.folder} > {log} 2>&1"
