# From the simplified ONNX file to ncnn, and from the networks in fp32 to INT8.


rule ncnn2table:
    """Find the weight and activation scales of the layers to quantize."""
    input:
        param=f"{RESULTS}/converted/ncnn-fp32.param",
        bin=f"{RESULTS}/converted/ncnn-fp32.bin",
        record=f"{RESULTS}/converted/ncnn-fp32.json",
        crops=f"{RESULTS}/calibration",
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
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("ncnn2table"),
        method=recipe_or_method,
        tool=official_tool("ncnn2table"),
    shell:
        'python "$SCRIPTS"/ncnn2table.py --param {input.param} --bin {input.bin}'
        " --record {input.record}"
        " --crops {input.crops} --method {params.method} --threads {threads}"
        " {params.tool} --out {output} > {log} 2>&1"


rule ncnn2int8:
    """Quantize the network with the scales of the table."""
    input:
        unpack(to_quantize),
        table=f"{RESULTS}/{{variant}}/model.table",
    output:
        param=f"{RESULTS}/{{variant}}/model.param",
        bin=f"{RESULTS}/{{variant}}/model.bin",
        record=f"{RESULTS}/{{variant}}/ncnn2int8.json",
    log:
        f"{RESULTS}/{{variant}}/ncnn2int8.log",
    benchmark:
        f"{RESULTS}/{{variant}}/ncnn2int8.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(NCNN_INT8),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        code=code("ncnn2int8"),
        tool=official_tool("ncnn2int8"),
    shell:
        'python "$SCRIPTS"/ncnn2int8.py --param {input.param} --bin {input.bin}'
        " --table {input.table} --record {input.record} {params.tool}"
        " --out-param {output.param} --out-bin {output.bin}"
        " --out-record {output.record} > {log} 2>&1"


rule quantize_openvino:
    """Quantize the OpenVINO network by NNCF."""
    input:
        xml=f"{RESULTS}/converted/openvino.xml",
        bin=f"{RESULTS}/converted/openvino.bin",
        record=f"{RESULTS}/converted/openvino.json",
        model=f"{RESULTS}/model.json",
        crops=f"{RESULTS}/calibration",
    output:
        xml=f"{RESULTS}/{{variant}}/model.xml",
        bin=f"{RESULTS}/{{variant}}/model.bin",
        record=f"{RESULTS}/{{variant}}/quantize.json",
    log:
        f"{RESULTS}/{{variant}}/quantize_openvino.log",
    benchmark:
        f"{RESULTS}/{{variant}}/quantize_openvino.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(variants_with(backend="openvino", precision="int8")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        code=code("quantize_openvino"),
    shell:
        'python "$SCRIPTS"/quantize_openvino.py --xml {input.xml} --bin {input.bin}'
        " --record {input.record}"
        " --model {input.model} --crops {input.crops}"
        " --out {output.xml} --out-record {output.record} > {log} 2>&1"


rule quantize_onnxruntime:
    """Quantize the simplified ONNX network for ONNX Runtime."""
    input:
        onnx=f"{RESULTS}/onnx/simplified.onnx",
        record=f"{RESULTS}/onnx/simplify.json",
        model=f"{RESULTS}/model.json",
        crops=f"{RESULTS}/calibration",
    output:
        onnx=f"{RESULTS}/{{variant}}/model.onnx",
        record=f"{RESULTS}/{{variant}}/quantize.json",
    log:
        f"{RESULTS}/{{variant}}/quantize_onnxruntime.log",
    benchmark:
        f"{RESULTS}/{{variant}}/quantize_onnxruntime.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(variants_with(backend="onnxruntime", precision="int8")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        code=code("quantize_onnxruntime"),
    shell:
        'python "$SCRIPTS"/quantize_onnxruntime.py --onnx {input.onnx}'
        " --record {input.record}"
        " --model {input.model} --crops {input.crops}"
        " --out {output.onnx} --out-record {output.record} > {log} 2>&1"
