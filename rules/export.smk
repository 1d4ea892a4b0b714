# From a checkpoint, or a user's ONNX file, to a simplified ONNX file, and from that to ncnn and OpenVINO; and from a
# user's ncnn files to ncnn.


rule describe:
    """Write down what the network expects of a crop and how its output is decoded."""
    input:
        unpack(described),
        keypoints=keypoints_file,
    output:
        f"{RESULTS}/model.json",
    log:
        f"{RESULTS}/describe.log",
    benchmark:
        f"{RESULTS}/describe.benchmark.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        code=code("describe"),
        source=description_options,
        keypoints=keypoints_option,
    shell:
        'python "$SCRIPTS"/describe.py --name {wildcards.model} {params.source} {params.keypoints}'
        " --out {output} > {log} 2>&1"


rule export:
    """Export the network to ONNX through mmdeploy, compare it with PyTorch, and stop on an operator that ncnn lacks."""
    input:
        config=model_file("config"),
        checkpoint=model_file("checkpoint"),
        model=f"{RESULTS}/model.json",
        crops=f"{RESULTS}/calibration",
    output:
        onnx=f"{RESULTS}/onnx/exported.onnx",
        deploy_config=f"{RESULTS}/onnx/deploy_config.py",
        record=f"{RESULTS}/onnx/export.json",
        table=f"{RESULTS}/onnx/operators.csv",
        page=f"{RESULTS}/onnx/operators.md",
        html=report(
            f"{RESULTS}/onnx/operators.html", category="Operators", labels=MODEL
        ),
    log:
        f"{RESULTS}/onnx/export.log",
    benchmark:
        f"{RESULTS}/onnx/export.benchmark.tsv"
    wildcard_constraints:
        model=any_of(models_from("mmpose")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(6000),
        runtime=growing(30),
    params:
        code=code("export"),
        settings=study_settings("export"),
    shell:
        'python "$SCRIPTS"/export.py --config {input.config:q}'
        " --checkpoint {input.checkpoint:q} --model {input.model} --crops {input.crops}"
        " --opset {params.settings[opset]} --precision {params.settings[precision]}"
        " --out {output.onnx} --out-deploy-config {output.deploy_config}"
        " --out-record {output.record} --out-table {output.table} --out-page {output.page}"
        " > {log} 2>&1"


rule import_onnx:
    """Clean up a user's ONNX file for the converters, check its output, and stop on an operator that ncnn lacks."""
    input:
        onnx=model_file("onnx"),
    output:
        onnx=f"{RESULTS}/onnx/exported.onnx",
        record=f"{RESULTS}/onnx/export.json",
        table=f"{RESULTS}/onnx/operators.csv",
        page=f"{RESULTS}/onnx/operators.md",
        html=report(
            f"{RESULTS}/onnx/operators.html", category="Operators", labels=MODEL
        ),
    log:
        f"{RESULTS}/onnx/import_onnx.log",
    benchmark:
        f"{RESULTS}/onnx/import_onnx.benchmark.tsv"
    wildcard_constraints:
        model=any_of(models_from("onnx")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        code=code("import_onnx"),
    shell:
        'python "$SCRIPTS"/import_onnx.py --onnx {input.onnx:q} --out {output.onnx}'
        " --out-record {output.record} --out-table {output.table} --out-page {output.page}"
        " > {log} 2>&1"


rule import_ncnn:
    """Name the ends of a user's ncnn network, try it out, and store it as a converted one, with weights of both kinds."""
    input:
        param=model_file("param"),
        bin=model_file("bin"),
        model=f"{RESULTS}/model.json",
    output:
        fp32=multiext(f"{RESULTS}/converted/ncnn-fp32", ".param", ".bin", ".json"),
        fp16=multiext(f"{RESULTS}/converted/ncnn-fp16", ".param", ".bin", ".json"),
        table=f"{RESULTS}/converted/operators.csv",
        page=f"{RESULTS}/converted/operators.md",
        html=report(
            f"{RESULTS}/converted/operators.html", category="Operators", labels=MODEL
        ),
    log:
        f"{RESULTS}/converted/import_ncnn.log",
    benchmark:
        f"{RESULTS}/converted/import_ncnn.benchmark.tsv"
    wildcard_constraints:
        model=any_of(models_from("ncnn")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        code=code("import_ncnn"),
        blobs=blob_options,
    shell:
        'python "$SCRIPTS"/import_ncnn.py --param {input.param:q} --bin {input.bin:q}'
        " --model {input.model} {params.blobs}"
        " --out-fp32 {output.fp32[0]} --out-fp16 {output.fp16[0]}"
        " --out-table {output.table} --out-page {output.page} > {log} 2>&1"


rule simplify:
    """Simplify the ONNX graph and check that its output stays the same."""
    input:
        onnx=f"{RESULTS}/onnx/exported.onnx",
        record=f"{RESULTS}/onnx/export.json",
        crops=f"{RESULTS}/calibration",
    output:
        onnx=f"{RESULTS}/onnx/simplified.onnx",
        record=f"{RESULTS}/onnx/simplify.json",
    log:
        f"{RESULTS}/onnx/simplify.log",
    benchmark:
        f"{RESULTS}/onnx/simplify.benchmark.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code("simplify"),
    shell:
        'python "$SCRIPTS"/simplify.py --onnx {input.onnx}'
        " --record {input.record} --crops {input.crops}"
        " --out {output.onnx} --out-record {output.record} > {log} 2>&1"


rule convert_ncnn:
    """Convert to ncnn with weights in fp32 or fp16 and compare with ONNX Runtime on real crops."""
    input:
        model=f"{RESULTS}/model.json",
        onnx=f"{RESULTS}/onnx/simplified.onnx",
        record=f"{RESULTS}/onnx/simplify.json",
        crops=f"{RESULTS}/calibration",
    output:
        param=f"{RESULTS}/converted/ncnn-{{weights}}.param",
        bin=f"{RESULTS}/converted/ncnn-{{weights}}.bin",
        record=f"{RESULTS}/converted/ncnn-{{weights}}.json",
    log:
        f"{RESULTS}/converted/convert_ncnn-{{weights}}.log",
    benchmark:
        f"{RESULTS}/converted/convert_ncnn-{{weights}}.benchmark.tsv"
    wildcard_constraints:
        model=any_of(models_from("mmpose", "onnx")),
        weights="fp32|fp16",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(6000),
        runtime=growing(30),
    params:
        code=code("convert_ncnn"),
    shell:
        'python "$SCRIPTS"/convert_ncnn.py --model {input.model} --onnx {input.onnx}'
        " --record {input.record}"
        " --crops {input.crops} --weights {wildcards.weights}"
        " --out-param {output.param} --out-bin {output.bin}"
        " --out-record {output.record} > {log} 2>&1"


rule convert_openvino:
    """Convert to OpenVINO's own format and compare with ONNX Runtime on real crops."""
    input:
        model=f"{RESULTS}/model.json",
        onnx=f"{RESULTS}/onnx/simplified.onnx",
        record=f"{RESULTS}/onnx/simplify.json",
        crops=f"{RESULTS}/calibration",
    output:
        xml=f"{RESULTS}/converted/openvino.xml",
        bin=f"{RESULTS}/converted/openvino.bin",
        record=f"{RESULTS}/converted/openvino.json",
    log:
        f"{RESULTS}/converted/convert_openvino.log",
    benchmark:
        f"{RESULTS}/converted/convert_openvino.benchmark.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code("convert_openvino"),
    shell:
        'python "$SCRIPTS"/convert_openvino.py --model {input.model} --onnx {input.onnx}'
        " --record {input.record}"
        " --crops {input.crops}"
        " --out {output.xml} --out-record {output.record} > {log} 2>&1"
