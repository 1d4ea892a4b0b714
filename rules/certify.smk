# What an artifact in reduced precision costs beside FP32, and how sure that is.

COMPARISON = f"{RESULTS}/{{variant}}/against/{{other}}/comparison"


rule certify:
    """Certify a network in reduced precision: difference to FP32 with its interval, joints, arithmetic."""
    input:
        predictions=f"{RESULTS}/{{variant}}/predictions.npz",
        reference=fp32_predictions,
        annotations=evaluated_annotations,
        model=f"{RESULTS}/model.json",
        artifact=artifact,
        reference_artifact=fp32_artifact,
        crops=f"{RESULTS}/calibration",
        calibration="results/{study}/calibration.json",
    output:
        certificate=f"{RESULTS}/{{variant}}/certificate.json",
        page=f"{RESULTS}/{{variant}}/certificate.md",
        html=report(
            f"{RESULTS}/{{variant}}/certificate.html",
            category="Certificates",
            labels=ROW,
        ),
    log:
        f"{RESULTS}/{{variant}}/certify.log",
    benchmark:
        f"{RESULTS}/{{variant}}/certify.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(REDUCED),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("certify"),
        settings=study_settings("certificate"),
    shell:
        'python "$SCRIPTS"/certify.py --predictions {input.predictions}'
        " --reference {input.reference} --annotations {input.annotations:q}"
        " --model {input.model} --artifact {input.artifact:q}"
        " --reference-artifact {input.reference_artifact:q}"
        " --crops {input.crops} --calibration {input.calibration}"
        " --resamples {params.settings[resamples]} --seed {params.settings[seed]}"
        " --confidence {params.settings[confidence]}"
        " --out {output.certificate} --out-page {output.page} > {log} 2>&1"


rule compare:
    """Compare two rows of a model by their predictions. On request only: nothing else reads it."""
    input:
        first=f"{RESULTS}/{{other}}/predictions.npz",
        second=f"{RESULTS}/{{variant}}/predictions.npz",
        annotations=evaluated_annotations,
    output:
        page=f"{COMPARISON}.md",
        html=report(
            f"{COMPARISON}.html",
            category="Comparisons",
            labels=ROW | {"against": "{other}"},
        ),
        data=f"{COMPARISON}.json",
        junit=f"{COMPARISON}.xml",
    log:
        f"{COMPARISON}.log",
    benchmark:
        f"{COMPARISON}.benchmark.tsv"
    wildcard_constraints:
        other=any_of(config["variants"]),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("compare"),
        settings=study_settings("certificate"),
        tolerance=study_settings("tolerance"),
    # Status 3 says that more was lost than is tolerated: that is what the page is for, and no fault of the step.
    shell:
        'python "$SCRIPTS"/compare.py {input.first} {input.second}'
        " --annotations {input.annotations:q} --tolerance {params.tolerance[ap_loss]}"
        " --resamples {params.settings[resamples]} --seed {params.settings[seed]}"
        " --confidence {params.settings[confidence]}"
        " --out {output.page} --out-json {output.data} --out-junit {output.junit}"
        " > {log} 2>&1 || [ $? -eq 3 ]"
