# From an artifact to its predictions, and from those to the COCO keypoint statistics.

# Of one job. A network is opened once for all of them.
PREDICTION_THREADS = 4
SHARDS = f"{RESULTS}/{{variant}}/shards/{{subset}}{{shard}}-of-{{shards}}"


rule predict:
    """Predict the keypoints of the people of one shard of the evaluation set."""
    input:
        unpack(to_predict),
        model=f"{RESULTS}/model.json",
        crops=CROPS,
    output:
        f"{SHARDS}.npz",
    log:
        f"{SHARDS}.log",
    benchmark:
        f"{SHARDS}.benchmark.tsv"
    wildcard_constraints:
        shard=r"\d+",
        shards=r"\d+",
    conda:
        ENVIRONMENT
    threads: PREDICTION_THREADS
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        code=code("predict"),
        options=prediction_options,
    shell:
        'python "$SCRIPTS"/predict.py --model {input.model} {params.options}'
        " --artifact {input.artifact:q} --annotations {input.annotations:q}"
        " --images {input.images:q} --crops {input.crops} --detections {input.detections:q}"
        " --threads {threads} --out {output} > {log} 2>&1"


rule evaluate:
    """Put the shards together, everybody exactly once, and score them with the COCO keypoint metrics."""
    input:
        shards=shards,
        annotations=evaluated_annotations,
        detections=detections,
    output:
        predictions=f"{RESULTS}/{{variant}}/predictions.npz",
        metrics=f"{RESULTS}/{{variant}}/metrics.json",
    log:
        f"{RESULTS}/{{variant}}/evaluate.log",
    benchmark:
        f"{RESULTS}/{{variant}}/evaluate.benchmark.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        code=code("evaluate"),
    shell:
        'python "$SCRIPTS"/evaluate.py --shards {input.shards}'
        " --annotations {input.annotations:q} --detections {input.detections:q}"
        " --out {output.metrics} --out-predictions {output.predictions} > {log} 2>&1"
