# The page that the user came for.


rule collect_network:
    """Put what is known of a network in a study together, in the form of a study's result."""
    input:
        metrics=per_row("metrics.json"),
        latency=f"{RESULTS}/latency.json",
        model=f"{RESULTS}/model.json",
        operators=operators("md"),
        calibration="results/{study}/calibration.json",
        certificates=reduced("certificate.json"),
        recipes=recipe_records,
        attributions=attributions,
        pictures=reduced("pictures.json"),
    output:
        f"{RESULTS}/result.json",
    log:
        f"{RESULTS}/collect_network.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(1000),
        runtime=growing(5),
    params:
        code=code("collect_network"),
        logs=per_row("evaluate.log"),
        settings=settings_of_network,
    shell:
        'python "$SCRIPTS"/collect_network.py --study {wildcards.study}'
        " --settings {params.settings:q} --metrics {input.metrics} --logs {params.logs}"
        " --models {input.model} --latencies {input.latency}"
        " --operators {input.operators} --calibration {input.calibration}"
        " --certificates {input.certificates} --recipes {input.recipes}"
        " --attributions {input.attributions} --pictures {input.pictures}"
        " --links-from results/{wildcards.study} --out {output} > {log} 2>&1"


rule collect_result:
    """Put the results of a study's networks together, as one file that the page, the figures and the report are made from.

    A command that named the files of all rows of very many networks would be longer than the system allows.
    """
    input:
        per_model("result.json"),
    output:
        "results/{study}/result.json",
    log:
        "results/{study}/collect_result.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(1000),
        runtime=growing(5),
    params:
        code=code("collect_result"),
    shell:
        'python "$SCRIPTS"/collect_result.py --networks {input} --out {output} > {log} 2>&1'


rule pictures:
    """Show people's poses in reduced precision and in FP32 over their photographs."""
    input:
        predictions=f"{RESULTS}/{{variant}}/predictions.npz",
        reference=fp32_predictions,
        annotations=evaluated_annotations,
        images=dataset("val", "images"),
        model=f"{RESULTS}/model.json",
        artifact=artifact,
        reference_artifact=fp32_artifact,
    output:
        pictures=f"{RESULTS}/{{variant}}/pictures.json",
        folder=directory(f"{RESULTS}/{{variant}}/pictures"),
        page=f"{RESULTS}/{{variant}}/pictures.md",
        html=report(
            f"{RESULTS}/{{variant}}/pictures.html",
            category="Pictures",
            labels=ROW,
        ),
    log:
        f"{RESULTS}/{{variant}}/pictures.log",
    benchmark:
        f"{RESULTS}/{{variant}}/pictures.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(REDUCED),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        code=code("pictures"),
        images=images_state("val"),
        settings=study_settings("pictures"),
    shell:
        'python "$SCRIPTS"/pictures.py --predictions {input.predictions}'
        " --reference {input.reference} --annotations {input.annotations:q}"
        " --images {input.images:q} --model {input.model}"
        " --artifact {input.artifact:q}"
        " --reference-artifact {input.reference_artifact:q}"
        " --worst {params.settings[worst]} --typical {params.settings[typical]}"
        " --random {params.settings[random]} --seed {params.settings[seed]}"
        " --out {output.pictures} --out-folder {output.folder}"
        " --out-page {output.page} > {log} 2>&1"


# Names of the pictures of a study, in the order of the page (posequant/report/figures.py; a test compares them).
FIGURES = ("difference", "tradeoff", "moved", "joints", "sizes", "memory")


rule render_result:
    """Render the page of a study."""
    input:
        result="results/{study}/result.json",
        report="results/{study}/report.html",
    output:
        page="results/{study}/result.md",
        figures=[
            report(
                f"results/{{study}}/figures/{name}.svg",
                category="Figures",
                labels=STUDY | {"figure": name},
            )
            for name in FIGURES
        ],
        images=expand("results/{{study}}/figures/{name}.png", name=FIGURES),
    log:
        "results/{study}/render_result.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(1000),
        runtime=growing(5),
    params:
        code=code("render_result"),
    shell:
        'python "$SCRIPTS"/render_result.py --result {input.result} --report {input.report}'
        " --out {output.page} --out-figures {output.figures} > {log} 2>&1"


rule render_report:
    """Render the result of a study as one HTML file that needs no other."""
    input:
        result="results/{study}/result.json",
        pages=report_pages,
        pictures=reduced("pictures.json"),
        devices=device_pages,
    output:
        report(
            "results/{study}/report.html",
            category="Result",
            labels=STUDY | {"form": "report"},
        ),
    log:
        "results/{study}/render_report.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(1000),
        runtime=growing(5),
    params:
        code=code("render_report"),
    shell:
        'python "$SCRIPTS"/render_report.py --result {input.result}'
        " --pictures {input.pictures} --devices {input.devices} --out {output} > {log} 2>&1"


rule result:
    """Copy the page of the study that `study` names to where it is looked for first."""
    input:
        f"results/{config['study']}/result.md",
    output:
        "results/result.md",
    log:
        "results/result.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(100),
        runtime=growing(5),
    params:
        code=code("result"),
    shell:
        'python "$SCRIPTS"/result.py --page {input} --out {output} > {log} 2>&1'


onstart:
    if workflow.is_main_process:
        end_on_sigterm()
        if workflow.executor_plugin.name == "slurm":
            watch_queue(Path.cwd(), logger.warning)
        refuse_to_prune(workflow.dag)
        require_vulkan(workflow.dag)
        said, warning = estimate(workflow.dag)
        for line in said:
            logger.info(line)
        if warning:
            logger.warning(warning)
    made = [
        file.regex()
        for rule in workflow.rules
        for file in (
            *rule.output,
            *rule.log,
            *([rule.benchmark] if rule.benchmark else []),
        )
    ]
    # What was measured on devices stays, whether the file that names them is given or not.
    made.append(re.compile(r"results/[^/]+/devices"))
    for notice in leftover_notices(Path("results"), config["studies"], made):
        logger.warning(notice)


onsuccess:
    for job in terminal.finished if terminal else ():
        if job.rule in ("render_result", "render_throughput"):
            name = job.rule.removeprefix("render_")
            page = Path("results") / job.place / f"{name}.md"
            logger.info(f"\n{summary(page.read_text())}\n\nThe page: {page}")


onerror:
    logger.error(
        "A step failed: its log and what to do are above. The same command goes on from here."
    )
