# Where the error of an ncnn INT8 network comes from, and where its time goes. On request only: nothing else reads it.


rule attribute:
    """Attribute the error of an ncnn INT8 network to its layers, and to weights and activations."""
    input:
        unpack(float_network),
        artifact=artifact,
        model=f"{RESULTS}/model.json",
        crops=f"{RESULTS}/calibration",
    output:
        f"{RESULTS}/{{variant}}/attribution.json",
    log:
        f"{RESULTS}/{{variant}}/attribute.log",
    benchmark:
        f"{RESULTS}/{{variant}}/attribute.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(NCNN_INT8),
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        code=code("attribute"),
    shell:
        'python "$SCRIPTS"/attribute.py --param {input.param} --bin {input.bin}'
        " --int8-param {input.artifact[0]} --int8-bin {input.artifact[1]}"
        " --model {input.model} --variant {wildcards.variant}"
        " --crops {input.crops} --threads {threads} --out {output} > {log} 2>&1"


rule layer_times:
    """Measure how long each layer of an ncnn INT8 network takes, in float and in INT8."""
    input:
        param=f"{RESULTS}/converted/ncnn-fp32.param",
        bin=f"{RESULTS}/converted/ncnn-fp32.bin",
        artifact=artifact,
        model=f"{RESULTS}/model.json",
        crops=f"{RESULTS}/calibration",
    output:
        f"{RESULTS}/{{variant}}/layer-times.json",
    log:
        f"{RESULTS}/{{variant}}/layer_times.log",
    benchmark:
        f"{RESULTS}/{{variant}}/layer_times.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(NCNN_INT8),
    conda:
        ENVIRONMENT
    threads: all_cores()
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    params:
        code=code("layer_times"),
    shell:
        'python "$SCRIPTS"/layer_times.py --param {input.param} --bin {input.bin}'
        " --int8-param {input.artifact[0]} --int8-bin {input.artifact[1]}"
        " --model {input.model} --variant {wildcards.variant}"
        " --crops {input.crops} --out {output} > {log} 2>&1"


rule render_attribution:
    """Put the attribution of an ncnn INT8 network and the times of its layers on a page."""
    input:
        attribution=f"{RESULTS}/{{variant}}/attribution.json",
        times=f"{RESULTS}/{{variant}}/layer-times.json",
    output:
        table=f"{RESULTS}/{{variant}}/attribution.csv",
        steps=report(
            f"{RESULTS}/{{variant}}/attribution-steps.svg",
            category="Attribution",
            labels=ROW | {"form": "picture of the steps"},
        ),
        steps_image=f"{RESULTS}/{{variant}}/attribution-steps.png",
        layers=report(
            f"{RESULTS}/{{variant}}/attribution-layers.svg",
            category="Attribution",
            labels=ROW | {"form": "picture of the layers"},
        ),
        layers_image=f"{RESULTS}/{{variant}}/attribution-layers.png",
        times=report(
            f"{RESULTS}/{{variant}}/attribution-times.svg",
            category="Attribution",
            labels=ROW | {"form": "picture of the times"},
        ),
        times_image=f"{RESULTS}/{{variant}}/attribution-times.png",
        page=f"{RESULTS}/{{variant}}/attribution.md",
        html=report(
            f"{RESULTS}/{{variant}}/attribution.html",
            category="Attribution",
            labels=ROW | {"form": "page"},
        ),
    log:
        f"{RESULTS}/{{variant}}/render_attribution.log",
    wildcard_constraints:
        variant=any_of(NCNN_INT8),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(1000),
        runtime=growing(5),
    params:
        code=code("render_attribution"),
    shell:
        'python "$SCRIPTS"/render_attribution.py --attribution {input.attribution}'
        " --times {input.times} --out {output.page} --out-table {output.table}"
        " --out-steps {output.steps} --out-layers {output.layers}"
        " --out-times {output.times} > {log} 2>&1"
