# From a checkpoint, or a user's ONNX file, to a simplified ONNX file.


rule describe_mmpose_model:
    """Read from the mmpose config what the network expects of a crop and how its output is decoded."""
    input:
        config=model_file("config"),
        code=code("describe"),
    output:
        f"{RESULTS}/model.json",
    log:
        f"{RESULTS}/model.log",
    wildcard_constraints:
        model=any_of(models_from("mmpose")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "python scripts/describe.py --name {wildcards.model}"
        " --config {input.config} --out {output} 2>&1 | tee {log}"


rule describe_onnx_model:
    """Write down what the configuration says of a user's ONNX network, checked against the file."""
    input:
        onnx=f"{RESULTS}/onnx/exported.onnx",
        code=code("describe"),
    output:
        f"{RESULTS}/model.json",
    log:
        f"{RESULTS}/model.log",
    wildcard_constraints:
        model=any_of(models_from("onnx")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=onnx_settings,
    shell:
        "python scripts/describe.py --name {wildcards.model} --onnx {input.onnx}"
        " --onnx-settings {params.settings:q} --out {output} 2>&1 | tee {log}"


rule deploy_config:
    """Write the deploy config that mmdeploy receives."""
    input:
        model=f"{RESULTS}/model.json",
        code=code("deploy_config"),
    output:
        f"{RESULTS}/onnx/deploy_config.py",
    log:
        f"{RESULTS}/onnx/deploy_config.log",
    wildcard_constraints:
        model=any_of(models_from("mmpose")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        settings=lookup("studies/{study}/export", within=config),
        vulkan=branch(
            lookup("studies/{study}/export/use_vulkan", within=config),
            then="--use-vulkan",
            otherwise="--no-use-vulkan",
        ),
    shell:
        "python scripts/deploy_config.py --model {input.model}"
        " --opset {params.settings[opset]} --precision {params.settings[precision]}"
        " {params.vulkan} --out {output} 2>&1 | tee {log}"


rule export_onnx:
    """Export the network to ONNX through mmdeploy and compare it with PyTorch on real crops."""
    input:
        config=model_file("config"),
        checkpoint=model_file("checkpoint"),
        deploy_config=f"{RESULTS}/onnx/deploy_config.py",
        model=f"{RESULTS}/model.json",
        crops=f"{RESULTS}/calibration",
        code=code("export"),
    output:
        onnx=f"{RESULTS}/onnx/exported.onnx",
        record=f"{RESULTS}/onnx/export.json",
    log:
        f"{RESULTS}/onnx/export.log",
    benchmark:
        f"{RESULTS}/onnx/export.benchmark.tsv"
    wildcard_constraints:
        model=any_of(models_from("mmpose")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "python scripts/export.py --config {input.config}"
        " --checkpoint {input.checkpoint} --deploy-config {input.deploy_config}"
        " --model {input.model} --crops {input.crops}"
        " --out {output.onnx} --record {output.record} 2>&1 | tee {log}"


rule import_onnx:
    """Clean up a user's ONNX file for the converters and check that its output stays the same."""
    input:
        onnx=model_file("onnx"),
        code=code("import_onnx"),
    output:
        onnx=f"{RESULTS}/onnx/exported.onnx",
        record=f"{RESULTS}/onnx/export.json",
    log:
        f"{RESULTS}/onnx/import.log",
    benchmark:
        f"{RESULTS}/onnx/import.benchmark.tsv"
    wildcard_constraints:
        model=any_of(models_from("onnx")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=10,
    shell:
        "python scripts/import_onnx.py --onnx {input.onnx}"
        " --out {output.onnx} --record {output.record} 2>&1 | tee {log}"


rule audit_mmpose_operators:
    """List torch operator, ONNX operator and ncnn layer; stop on one that ncnn lacks."""
    input:
        config=model_file("config"),
        checkpoint=model_file("checkpoint"),
        deploy_config=f"{RESULTS}/onnx/deploy_config.py",
        onnx=f"{RESULTS}/onnx/exported.onnx",
        code=code("audit"),
    output:
        table=f"{RESULTS}/onnx/operators.csv",
        markdown=f"{RESULTS}/onnx/operators.md",
    log:
        f"{RESULTS}/onnx/operators.log",
    benchmark:
        f"{RESULTS}/onnx/operators.benchmark.tsv"
    wildcard_constraints:
        model=any_of(models_from("mmpose")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=10,
    shell:
        "python scripts/audit.py --config {input.config}"
        " --checkpoint {input.checkpoint} --deploy-config {input.deploy_config}"
        " --onnx {input.onnx}"
        " --out {output.table} --markdown {output.markdown} 2>&1 | tee {log}"


rule audit_onnx_operators:
    """List ONNX operator and ncnn layer; stop on one that ncnn lacks."""
    input:
        onnx=f"{RESULTS}/onnx/exported.onnx",
        code=code("audit"),
    output:
        table=f"{RESULTS}/onnx/operators.csv",
        markdown=f"{RESULTS}/onnx/operators.md",
    log:
        f"{RESULTS}/onnx/operators.log",
    benchmark:
        f"{RESULTS}/onnx/operators.benchmark.tsv"
    wildcard_constraints:
        model=any_of(models_from("onnx")),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "python scripts/audit.py --onnx {input.onnx}"
        " --out {output.table} --markdown {output.markdown} 2>&1 | tee {log}"


rule simplify_onnx:
    """Simplify the ONNX graph and check that its output stays the same."""
    input:
        onnx=f"{RESULTS}/onnx/exported.onnx",
        operators=f"{RESULTS}/onnx/operators.csv",
        crops=f"{RESULTS}/calibration",
        code=code("simplify"),
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
        mem_mb=4000,
        runtime=30,
    shell:
        "python scripts/simplify.py --onnx {input.onnx} --crops {input.crops}"
        " --out {output.onnx} --record {output.record} 2>&1 | tee {log}"


rule convert_openvino:
    """Convert to OpenVINO's own format."""
    input:
        model=f"{RESULTS}/model.json",
        onnx=f"{RESULTS}/onnx/simplified.onnx",
        crops=f"{RESULTS}/calibration",
        code=code("convert_openvino"),
    output:
        xml=f"{RESULTS}/converted/openvino.xml",
        bin=f"{RESULTS}/converted/openvino.bin",
        record=f"{RESULTS}/converted/openvino.json",
    log:
        f"{RESULTS}/converted/openvino.log",
    benchmark:
        f"{RESULTS}/converted/openvino.benchmark.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "python scripts/convert_openvino.py --model {input.model} --onnx {input.onnx}"
        " --crops {input.crops}"
        " --out {output.xml} --record {output.record} 2>&1 | tee {log}"
