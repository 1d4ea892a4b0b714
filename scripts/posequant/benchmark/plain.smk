# A workflow of the same jobs, files and edges as a sharded study, with fixed strings in place of functions: what
# Snakemake itself takes to plan it. Of what a rule can say besides, it has what every rule of ours has.

MODEL = "results/{study}/{model}"
DATASET = "results/{study}/dataset"
SHARD = MODEL + "/{variant}/shards/{shard}-of-{shards}"
COUNT = int(config["shards"])


rule all:
    input:
        expand("results/demo/hourglass/{variant}/metrics.json", variant=range(10)),


rule dataset:
    output:
        annotations=DATASET + "/val.json",
        images=DATASET + "/val",
    shell:
        "touch {output}"


rule describe:
    output:
        MODEL + "/model.json",
    shell:
        "touch {output}"


rule convert:
    output:
        MODEL + "/{variant}/model.param",
        MODEL + "/{variant}/model.bin",
        MODEL + "/{variant}/model.record",
    shell:
        "touch {output}"


rule crops:
    input:
        annotations=DATASET + "/val.json",
        images=DATASET + "/val",
        model=MODEL + "/model.json",
    output:
        MODEL + "/crops/{shard}-of-{shards}",
    log:
        MODEL + "/crops/{shard}-of-{shards}.log",
    benchmark:
        MODEL + "/crops/{shard}-of-{shards}.benchmark.tsv"
    wildcard_constraints:
        shard=r"\d+",
        shards=r"\d+",
    threads: 4
    resources:
        mem_mb=2000,
        runtime=60,
    shell:
        "crops --model {input.model} --annotations {input.annotations:q} --images {input.images:q}"
        " --shard {wildcards.shard} --shards {wildcards.shards}"
        " --threads {threads} --out {output} > {log} 2>&1"


rule predict:
    input:
        annotations=DATASET + "/val.json",
        images=DATASET + "/val",
        artifact=rules.convert.output,
        model=MODEL + "/model.json",
        crops=MODEL + "/crops/{shard}-of-{shards}",
    output:
        SHARD + ".npz",
    log:
        SHARD + ".log",
    benchmark:
        SHARD + ".benchmark.tsv"
    wildcard_constraints:
        shard=r"\d+",
        shards=r"\d+",
    threads: 4
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        options="--precision fp32",
    shell:
        "predict --model {input.model} {params.options} --artifact {input.artifact:q}"
        " --annotations {input.annotations:q} --images {input.images:q} --crops {input.crops}"
        " --threads {threads} --out {output} > {log} 2>&1"


rule evaluate:
    input:
        shards=expand(
            SHARD + ".npz",
            shard=range(1, COUNT + 1),
            shards=COUNT,
            allow_missing=True,
        ),
        annotations=DATASET + "/val.json",
    output:
        MODEL + "/{variant}/metrics.json",
    log:
        MODEL + "/{variant}/evaluate.log",
    shell:
        "evaluate --shards {input.shards} --annotations {input.annotations:q} --out {output} > {log} 2>&1"
