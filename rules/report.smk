# The table that the user came for.


rule render_result:
    """Render the tables of the study."""
    input:
        metrics=per_row("metrics.json"),
        latencies=per_row("latency.json"),
        models=per_model("model.json"),
        operators=per_model("onnx/operators.md"),
        calibration=f"results/{config['study']}/calibration.json",
        certificates=per_row("certificate.json", precision="int8"),
        recipes=[
            page
            for page in per_row("recipe.md", backend="ncnn", precision="int8")
            if Path(page).parent.name in WITH_RECIPE
        ],
    output:
        page=report("results/result.md", category="Result"),
        figure=report("results/result.svg", category="Result"),
    log:
        "results/render_result.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code("render_result"),
        logs=per_row("evaluate.log"),
        architectures=[
            settings.get("architecture", model)
            for model, settings in config["studies"][config["study"]]["models"].items()
        ],
        published=json.dumps(
            [
                settings.get("published", [])
                for settings in config["studies"][config["study"]]["models"].values()
            ]
        ),
    shell:
        "python scripts/render_result.py --metrics {input.metrics}"
        " --latencies {input.latencies} --logs {params.logs} --models {input.models}"
        " --operators {input.operators} --architectures {params.architectures:q}"
        " --published {params.published:q}"
        " --calibration {input.calibration} --certificates {input.certificates}"
        " --recipes {input.recipes}"
        " --out {output.page} --out-figure {output.figure} > {log} 2>&1"
