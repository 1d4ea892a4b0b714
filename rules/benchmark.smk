# What an artifact costs to run.


rule measure_cost:
    """Measure the latency of a variant in turn with ONNX Runtime, and its size on disk."""
    input:
        model=f"{RESULTS}/model.json",
        artifact=artifact,
        reference=f"{RESULTS}/onnx/simplified.onnx",
        crops=f"{RESULTS}/calibration",
        code=code("latency"),
    output:
        f"{RESULTS}/{{variant}}/cost.json",
    log:
        f"{RESULTS}/{{variant}}/cost.log",
    benchmark:
        f"{RESULTS}/{{variant}}/cost.benchmark.tsv"
    conda:
        ENVIRONMENT
    # It runs on one; the others are kept free of jobs that would be measured with it.
    threads: 4
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        variant=lookup("variants/{variant}", within=config),
    shell:
        "python scripts/latency.py --model {input.model} --variant {wildcards.variant}"
        " --crops {input.crops}"
        " --backend {params.variant[backend]} --precision {params.variant[precision]}"
        " --artifact {input.artifact} --reference {input.reference}"
        " --out {output} 2>&1 | tee {log}"


rule measure_throughput:
    """Measure how much of a variant's speed its prediction keeps, in turn with the bare network."""
    input:
        model=f"{RESULTS}/model.json",
        artifact=artifact,
        annotations=dataset("val", "annotations"),
        images=dataset("val", "images"),
        detections=detections,
        code=code("throughput"),
    output:
        f"{RESULTS}/{{variant}}/throughput.json",
    log:
        f"{RESULTS}/{{variant}}/throughput.log",
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        variant=lookup("variants/{variant}", within=config),
        detections=detections_option,
    shell:
        "python scripts/throughput.py --model {input.model}"
        " --variant {wildcards.variant} --backend {params.variant[backend]}"
        " --precision {params.variant[precision]} --artifact {input.artifact}"
        " --annotations {input.annotations} --images {input.images}"
        " {params.detections} --threads {threads} --out {output} 2>&1 | tee {log}"
