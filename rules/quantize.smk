# From the simplified ONNX file to ncnn, and from the networks in fp32 to INT8.

OFFICIAL = [
    variant
    for method in ("kl", "aciq")
    for variant in variants_with(backend="ncnn", precision="int8", calibration=method)
]
WITH_RECIPE = [
    variant
    for variant in variants_with(backend="ncnn", precision="int8")
    if variant not in OFFICIAL
]


def recipe(wildcards) -> str:
    """The steps of the variant's recipe, as JSON."""
    name = config["variants"][wildcards.variant]["calibration"]
    return json.dumps(config["recipes"][name])


def to_quantize(wildcards) -> dict[str, str]:
    """Input function: the float network that ncnn2int8 gets, and the record of the recipe that prepared it."""
    folder = RESULTS.format(**wildcards)
    if wildcards.variant in OFFICIAL:
        network = f"{folder}/converted/ncnn-fp32"
        return {"param": f"{network}.param", "bin": f"{network}.bin"}
    own = f"{folder}/{wildcards.variant}"
    return {
        "param": f"{own}/prepared.param",
        "bin": f"{own}/prepared.bin",
        "record": f"{own}/recipe.json",
    }


rule convert_ncnn:
    """Convert to ncnn with weights in fp32 or fp16 and compare with ONNX Runtime on real crops."""
    input:
        model=f"{RESULTS}/model.json",
        onnx=f"{RESULTS}/onnx/simplified.onnx",
        crops=f"{RESULTS}/calibration",
        code=code("convert_ncnn"),
    output:
        param=f"{RESULTS}/converted/ncnn-{{weights}}.param",
        bin=f"{RESULTS}/converted/ncnn-{{weights}}.bin",
        record=f"{RESULTS}/converted/ncnn-{{weights}}.json",
    log:
        f"{RESULTS}/converted/ncnn-{{weights}}.log",
    benchmark:
        f"{RESULTS}/converted/ncnn-{{weights}}.benchmark.tsv"
    wildcard_constraints:
        weights="fp32|fp16",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "python scripts/convert_ncnn.py --model {input.model} --onnx {input.onnx}"
        " --crops {input.crops} --weights {wildcards.weights}"
        " --out-param {output.param} --out-bin {output.bin}"
        " --record {output.record} 2>&1 | tee {log}"


rule calibration_set:
    """Choose the training people to calibrate on; refuse any that are in the evaluation set."""
    input:
        annotations=dataset("train", "annotations"),
        evaluation_annotations=dataset("val", "annotations"),
        code=code("calibration_set"),
    output:
        "results/{study}/calibration.json",
    log:
        "results/{study}/calibration.log",
    benchmark:
        "results/{study}/calibration.benchmark.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        settings=lookup("studies/{study}/calibration", within=config),
    shell:
        "python scripts/calibration_set.py --annotations {input.annotations}"
        " --evaluation-annotations {input.evaluation_annotations}"
        " --people {params.settings[people]} --seed {params.settings[seed]}"
        " --out {output} 2>&1 | tee {log}"


rule calibration_crops:
    """Crop the chosen people by the model's own test pipeline: the tensors that the network sees."""
    input:
        model=f"{RESULTS}/model.json",
        calibration="results/{study}/calibration.json",
        images=dataset("train", "images"),
        code=code("calibration_crops"),
    output:
        directory(f"{RESULTS}/calibration"),
    log:
        f"{RESULTS}/calibration.log",
    benchmark:
        f"{RESULTS}/calibration.benchmark.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=15,
    shell:
        "python scripts/calibration_crops.py --model {input.model}"
        " --calibration {input.calibration} --images {input.images}"
        " --out {output} 2>&1 | tee {log}"


rule ncnn2table:
    """Find the weight and activation scales of the layers to quantize."""
    input:
        param=f"{RESULTS}/converted/ncnn-fp32.param",
        bin=f"{RESULTS}/converted/ncnn-fp32.bin",
        crops=f"{RESULTS}/calibration",
        code=code("ncnn2table"),
    output:
        f"{RESULTS}/{{variant}}/model.table",
    log:
        f"{RESULTS}/{{variant}}/ncnn2table.log",
    benchmark:
        f"{RESULTS}/{{variant}}/ncnn2table.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(OFFICIAL),
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        method=lookup("variants/{variant}/calibration", within=config),
        tool=official_tool("ncnn2table"),
    shell:
        "python scripts/ncnn2table.py --param {input.param} --bin {input.bin}"
        " --crops {input.crops} --method {params.method} --threads {threads}"
        " {params.tool} --out {output} 2>&1 | tee {log}"


rule apply_recipe:
    """Prepare the network for INT8 by the steps of the variant's recipe, and find its scales."""
    input:
        param=f"{RESULTS}/converted/ncnn-fp32.param",
        bin=f"{RESULTS}/converted/ncnn-fp32.bin",
        crops=f"{RESULTS}/calibration",
        model=f"{RESULTS}/model.json",
        code=code("apply_recipe"),
    output:
        param=f"{RESULTS}/{{variant}}/prepared.param",
        bin=f"{RESULTS}/{{variant}}/prepared.bin",
        table=f"{RESULTS}/{{variant}}/model.table",
        record=f"{RESULTS}/{{variant}}/recipe.json",
        figure=report(f"{RESULTS}/{{variant}}/recipe.svg", category="Recipes"),
        page=report(f"{RESULTS}/{{variant}}/recipe.md", category="Recipes"),
    log:
        f"{RESULTS}/{{variant}}/recipe.log",
    benchmark:
        f"{RESULTS}/{{variant}}/recipe.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(WITH_RECIPE),
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        recipe=recipe,
    shell:
        "python scripts/apply_recipe.py --model {input.model} --param {input.param} --bin {input.bin}"
        " --crops {input.crops} --recipe {params.recipe:q} --threads {threads}"
        " --out-param {output.param} --out-bin {output.bin}"
        " --out-table {output.table} --record {output.record}"
        " --figure {output.figure} --markdown {output.page} 2>&1 | tee {log}"


rule ncnn2int8:
    """Quantize the network with the scales of the table."""
    input:
        unpack(to_quantize),
        table=f"{RESULTS}/{{variant}}/model.table",
        code=code("ncnn2int8"),
    output:
        param=f"{RESULTS}/{{variant}}/model.param",
        bin=f"{RESULTS}/{{variant}}/model.bin",
    log:
        f"{RESULTS}/{{variant}}/ncnn2int8.log",
    benchmark:
        f"{RESULTS}/{{variant}}/ncnn2int8.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(variants_with(backend="ncnn", precision="int8")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        tool=official_tool("ncnn2int8"),
        record=lambda wildcards, input: (
            f"--recipe-record {input.record}" if "record" in input.keys() else ""
        ),
    shell:
        "python scripts/ncnn2int8.py --param {input.param} --bin {input.bin}"
        " --table {input.table} {params.record} {params.tool}"
        " --out-param {output.param} --out-bin {output.bin} 2>&1 | tee {log}"


rule quantize_openvino:
    """Quantize the OpenVINO network by NNCF."""
    input:
        xml=f"{RESULTS}/converted/openvino.xml",
        bin=f"{RESULTS}/converted/openvino.bin",
        model=f"{RESULTS}/model.json",
        crops=f"{RESULTS}/calibration",
        code=code("quantize_openvino"),
    output:
        xml=f"{RESULTS}/{{variant}}/model.xml",
        bin=f"{RESULTS}/{{variant}}/model.bin",
        record=f"{RESULTS}/{{variant}}/quantize.json",
    log:
        f"{RESULTS}/{{variant}}/quantize.log",
    benchmark:
        f"{RESULTS}/{{variant}}/quantize.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(variants_with(backend="openvino", precision="int8")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=6000,
        runtime=60,
    shell:
        "python scripts/quantize_openvino.py --xml {input.xml} --bin {input.bin}"
        " --model {input.model} --crops {input.crops}"
        " --out {output.xml} --record {output.record} 2>&1 | tee {log}"


rule quantize_onnxruntime:
    """Quantize the simplified ONNX network for ONNX Runtime."""
    input:
        onnx=f"{RESULTS}/onnx/simplified.onnx",
        model=f"{RESULTS}/model.json",
        crops=f"{RESULTS}/calibration",
        code=code("quantize_onnxruntime"),
    output:
        onnx=f"{RESULTS}/{{variant}}/model.onnx",
        record=f"{RESULTS}/{{variant}}/quantize.json",
    log:
        f"{RESULTS}/{{variant}}/quantize.log",
    benchmark:
        f"{RESULTS}/{{variant}}/quantize.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(variants_with(backend="onnxruntime", precision="int8")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=6000,
        runtime=60,
    shell:
        "python scripts/quantize_onnxruntime.py --onnx {input.onnx}"
        " --model {input.model} --crops {input.crops}"
        " --out {output.onnx} --record {output.record} 2>&1 | tee {log}"
