# What an artifact costs to run.


rule latency:
    """Measure what all rows of a model cost, timed in turn: latency, throughput, time to load, memory, size on disk."""
    input:
        model=f"{RESULTS}/model.json",
        artifacts=latency_artifacts,
        reference=latency_reference,
        crops=f"{RESULTS}/calibration",
    output:
        f"{RESULTS}/latency.json",
    log:
        f"{RESULTS}/latency.log",
    benchmark:
        f"{RESULTS}/latency.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: all_cores()
    resources:
        mem_mb=latency_memory,
        runtime=growing(60),
    params:
        code=code("latency"),
        most=PREDICTION_THREADS,
        rows=latency_options,
    shell:
        'python "$SCRIPTS"/latency.py --model {input.model} {params.rows}'
        " --reference {input.reference} --crops {input.crops}"
        " --threads $(({threads} < {params.most} ? {threads} : {params.most}))"
        " --out {output} > {log} 2>&1"


rule throughput:
    """Measure how much of a variant's speed its prediction keeps, in turn with the bare network."""
    input:
        unpack(to_predict),
        model=f"{RESULTS}/model.json",
        crops=first_crops,
    output:
        f"{RESULTS}/{{variant}}/throughput.json",
    log:
        f"{RESULTS}/{{variant}}/throughput.log",
    conda:
        ENVIRONMENT
    threads: all_cores()
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code("throughput"),
        images=images_state("val"),
        most=PREDICTION_THREADS,
        options=variant_options,
        shards=first_shard_option,
    shell:
        'python "$SCRIPTS"/throughput.py --model {input.model}'
        " {params.options} --artifact {input.artifact:q}"
        " --annotations {input.annotations:q} --images {input.images:q}"
        " --crops {input.crops} {params.shards} --detections {input.detections:q}"
        " --threads $(({threads} < {params.most} ? {threads} : {params.most}))"
        " --out {output} > {log} 2>&1"


rule render_throughput:
    """Put the throughput of all rows of a study in one table."""
    input:
        measured=per_row("throughput.json"),
    output:
        markdown="results/{study}/throughput.md",
        html=report(
            "results/{study}/throughput.html", category="Throughput", labels=STUDY
        ),
        table="results/{study}/throughput.csv",
    log:
        "results/{study}/render_throughput.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(1000),
        runtime=growing(5),
    params:
        code=code("render_throughput"),
    shell:
        'python "$SCRIPTS"/render_throughput.py --measured {input.measured}'
        " --out {output.markdown} --out-table {output.table} > {log} 2>&1"


rule bench:
    """The throughput of the study that `study` names."""
    input:
        f"results/{config['study']}/throughput.md",
