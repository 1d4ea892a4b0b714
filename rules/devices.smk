# What networks do on other processors.

ARM = f"{RESULTS}/{{variant}}/arm"


rule emulate_arm:
    """Run an INT8 network in ncnn's build for ARM, on an emulated core, and compare its values with those on x86.

    An interruption keeps what is there of the people; the next run goes on from it.
    """
    input:
        unpack(to_emulate),
        model=f"{RESULTS}/model.json",
        artifact=artifact,
        reference_artifact=fp32_artifact,
    output:
        predictions=f"{ARM}/{{core}}/predictions.npz",
        comparison=f"{ARM}/{{core}}/comparison.json",
    log:
        f"{ARM}/{{core}}/emulate_arm.log",
    wildcard_constraints:
        variant=any_of(NCNN_INT8),
        core=any_of(CORES),
    conda:
        ENVIRONMENT
    threads: PREDICTION_THREADS
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        code=code("emulate_arm"),
        flip_test=flip_test_option,
        emulation=emulation_state,
    shell:
        'python "$SCRIPTS"/emulate_arm.py --core {wildcards.core} --variant {wildcards.variant}'
        " --model {input.model} --artifact {input.artifact:q}"
        " --reference-artifact {input.reference_artifact:q}"
        " --annotations {input.annotations} --images {input.images:q}"
        " --detections {input.detections:q} --crops {input.crops} {params.flip_test}"
        " --threads {threads} --out {output.predictions}"
        " --out-comparison {output.comparison} > {log} 2>&1"


rule certify_arm:
    """Certify an INT8 network on emulated ARM cores: what it finds there beside x86, and where they differ.

    On request only: nothing else reads it. It needs `make arm`.
    """
    input:
        unpack(to_certify_arm),
    output:
        certificate=f"{ARM}/certificate.json",
        page=f"{ARM}/certificate.md",
        html=report(
            f"{ARM}/certificate.html",
            category="Certificates",
            labels=ROW | {"on": "ARM, emulated"},
        ),
    log:
        f"{ARM}/certify_arm.log",
    benchmark:
        f"{ARM}/certify_arm.benchmark.tsv"
    wildcard_constraints:
        variant=any_of(NCNN_INT8),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("certify_arm"),
        settings=study_settings("certificate"),
    shell:
        'python "$SCRIPTS"/certify_arm.py --predictions {input.predictions}'
        " --reference {input.reference} --emulated {input.emulated}"
        " --comparisons {input.comparisons} --annotations {input.annotations}"
        " --resamples {params.settings[resamples]} --seed {params.settings[seed]}"
        " --confidence {params.settings[confidence]}"
        " --out {output.certificate} --out-page {output.page} > {log} 2>&1"
