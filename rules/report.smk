# The table that the user came for.


def per_row(name: str, **properties: str) -> list[str]:
    """The file `name` of every row of the study that is run, or of those with the `properties`."""
    study = config["studies"][config["study"]]
    return expand(
        "results/{study}/{model}/{variant}/" + name,
        study=config["study"],
        model=study["models"],
        variant=[
            variant
            for variant in study["variants"]
            if variant in variants_with(**properties)
        ],
    )


def per_model(name: str) -> list[str]:
    """The file `name` of every model of the study that is run."""
    return expand(
        "results/{study}/{model}/" + name,
        study=config["study"],
        model=config["studies"][config["study"]]["models"],
    )


rule result:
    """Render the tables of the study."""
    input:
        metrics=per_row("metrics.json"),
        costs=per_row("cost.json"),
        models=per_model("model.json"),
        operators=per_model("onnx/operators.md"),
        calibration=f"results/{config['study']}/calibration.json",
        certificates=per_row("certificate.json", precision="int8"),
        recipes=[
            page
            for page in per_row("recipe.md", backend="ncnn", precision="int8")
            if Path(page).parent.name in WITH_RECIPE
        ],
        code=code("render_result"),
    output:
        page=report("results/result.md", category="Result"),
        figure=report("results/result.svg", category="Result"),
    log:
        "results/result.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=5,
    params:
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
        " --costs {input.costs} --logs {params.logs} --models {input.models}"
        " --operators {input.operators} --architectures {params.architectures:q}"
        " --published {params.published:q}"
        " --calibration {input.calibration} --certificates {input.certificates}"
        " --recipes {input.recipes}"
        " --out {output.page} --figure {output.figure} 2>&1 | tee {log}"


rule throughput:
    """Put the throughput of all rows of the study in one table."""
    input:
        measured=per_row("throughput.json"),
        code=code("render_throughput"),
    output:
        markdown="results/bench/throughput.md",
        table="results/bench/throughput.csv",
    log:
        "results/bench/throughput.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=5,
    shell:
        "python scripts/render_throughput.py --measured {input.measured}"
        " --out {output.markdown} --table {output.table} 2>&1 | tee {log}"
