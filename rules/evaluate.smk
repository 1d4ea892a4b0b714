# From an artifact to its predictions, and from those to the COCO keypoint statistics.


rule predict:
    """Predict the keypoints of every person of the evaluation set."""
    input:
        model=f"{RESULTS}/model.json",
        artifact=artifact,
        annotations=dataset("val", "annotations"),
        images=dataset("val", "images"),
        detections=detections,
        code=code("predict"),
    output:
        f"{RESULTS}/{{variant}}/predictions.npz",
    log:
        f"{RESULTS}/{{variant}}/predict.log",
    benchmark:
        f"{RESULTS}/{{variant}}/predict.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        variant=lookup("variants/{variant}", within=config),
        detections=lambda wildcards, input: (
            f"--detections {input.detections}" if input.detections else ""
        ),
        flip_test=branch(
            lookup("studies/{study}/protocol/flip_test", within=config),
            then="--flip-test",
        ),
    shell:
        "python scripts/predict.py --model {input.model} --variant {wildcards.variant}"
        " --backend {params.variant[backend]} --precision {params.variant[precision]}"
        " --artifact {input.artifact} --annotations {input.annotations}"
        " --images {input.images} {params.detections} {params.flip_test}"
        " --threads {threads} --out {output} 2>&1 | tee {log}"


rule evaluate:
    """Score the predictions with the COCO keypoint metrics."""
    input:
        predictions=f"{RESULTS}/{{variant}}/predictions.npz",
        annotations=dataset("val", "annotations"),
        code=code("evaluate"),
    output:
        f"{RESULTS}/{{variant}}/metrics.json",
    log:
        f"{RESULTS}/{{variant}}/evaluate.log",
    benchmark:
        f"{RESULTS}/{{variant}}/evaluate.benchmark.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "python scripts/evaluate.py --predictions {input.predictions}"
        " --annotations {input.annotations} --out {output} 2>&1 | tee {log}"
