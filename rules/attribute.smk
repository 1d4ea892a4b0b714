# Where the error of an ncnn INT8 network comes from. On request only: nothing else reads it.


rule attribute:
    """Attribute the error of an ncnn INT8 network to its layers, and to weights and activations."""
    input:
        unpack(float_network),
        artifact=artifact,
        model=f"{RESULTS}/model.json",
        crops=f"{RESULTS}/calibration",
    output:
        attribution=f"{RESULTS}/{{variant}}/attribution.json",
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
        page=f"{RESULTS}/{{variant}}/attribution.md",
        html=report(
            f"{RESULTS}/{{variant}}/attribution.html",
            category="Attribution",
            labels=ROW | {"form": "page"},
        ),
    log:
        f"{RESULTS}/{{variant}}/attribute.log",
    benchmark:
        f"{RESULTS}/{{variant}}/attribute.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(variants_with(backend="ncnn", precision="int8")),
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
        " --crops {input.crops} --threads {threads}"
        " --out {output.attribution} --out-table {output.table}"
        " --out-steps {output.steps} --out-layers {output.layers} --out-page {output.page} > {log} 2>&1"
