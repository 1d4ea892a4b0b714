# What an artifact costs to run.


rule latency:
    """Measure the latency of a variant in turn with ONNX Runtime, and its size on disk."""
    input:
        model=f"{RESULTS}/model.json",
        artifact=artifact,
        reference=f"{RESULTS}/onnx/simplified.onnx",
        crops=f"{RESULTS}/calibration",
    output:
        f"{RESULTS}/{{variant}}/latency.json",
    log:
        f"{RESULTS}/{{variant}}/latency.log",
    benchmark:
        f"{RESULTS}/{{variant}}/latency.benchmark.tsv"
    conda:
        ENVIRONMENT
    # It runs on one; the others are kept free of jobs that would be measured with it.
    threads: 4
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=code("latency"),
        variant=lookup("variants/{variant}", within=config),
    shell:
        "python scripts/latency.py --model {input.model} --variant {wildcards.variant}"
        " --crops {input.crops}"
        " --backend {params.variant[backend]} --precision {params.variant[precision]}"
        " --artifact {input.artifact} --reference {input.reference}"
        " --out {output} > {log} 2>&1"


rule throughput:
    """Measure how much of a variant's speed its prediction keeps, in turn with the bare network."""
    input:
        model=f"{RESULTS}/model.json",
        artifact=artifact,
        annotations=dataset("val", "annotations"),
        images=dataset("val", "images"),
        detections=detections,
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
        code=code("throughput"),
        variant=lookup("variants/{variant}", within=config),
        detections=detections_option,
    shell:
        "python scripts/throughput.py --model {input.model}"
        " --variant {wildcards.variant} --backend {params.variant[backend]}"
        " --precision {params.variant[precision]} --artifact {input.artifact}"
        " --annotations {input.annotations} --images {input.images}"
        " {params.detections} --threads {threads} --out {output} > {log} 2>&1"


rule render_throughput:
    """Put the throughput of all rows of a study in one table."""
    input:
        measured=per_row("throughput.json"),
    output:
        markdown="results/{study}/throughput.md",
        table="results/{study}/throughput.csv",
    log:
        "results/{study}/render_throughput.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code("render_throughput"),
    shell:
        "python scripts/render_throughput.py --measured {input.measured}"
        " --out {output.markdown} --out-table {output.table} > {log} 2>&1"


rule bench:
    """The throughput of the study that `study` names."""
    input:
        f"results/{config['study']}/throughput.md",
