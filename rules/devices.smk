# What networks do on other processors: emulated ARM cores, and boards of your own.

ARM = f"{RESULTS}/{{variant}}/arm"
# What a device gets of a model, and what is known of a device.
TO_DEVICES = f"{RESULTS}/devices"
DEVICE = "results/{study}/devices/{device}"


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
    benchmark:
        f"{ARM}/{{core}}/emulate_arm.benchmark.tsv"
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


rule device_networks:
    """Pack the networks in ncnn of a model for devices."""
    input:
        model=f"{RESULTS}/model.json",
        artifacts=device_artifacts,
    output:
        f"{TO_DEVICES}/networks.zip",
    log:
        f"{TO_DEVICES}/device_networks.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        code=code("device_networks"),
        rows=device_rows_options,
    shell:
        'python "$SCRIPTS"/device_networks.py --model {input.model} {params.rows}'
        " --out {output} > {log} 2>&1"


rule device_people:
    """Crop the people that a model is measured on on devices."""
    input:
        unpack(evaluation_set),
        model=f"{RESULTS}/model.json",
    output:
        f"{TO_DEVICES}/{{subset}}people.npz",
    log:
        f"{TO_DEVICES}/{{subset}}device_people.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        code=code("device_people"),
        images=images_state("val"),
    shell:
        'python "$SCRIPTS"/device_people.py --model {input.model}'
        " --annotations {input.annotations:q} --images {input.images:q}"
        " --detections {input.detections:q} --out {output} > {log} 2>&1"


rule device_facts:
    """Ask a device what it is."""
    output:
        f"{DEVICE}/facts.json",
    log:
        f"{DEVICE}/device_facts.log",
    wildcard_constraints:
        device=any_of(OVER_SSH),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
        runtime=10,
    params:
        code=code("device_facts"),
        settings=device_way,
    shell:
        'python "$SCRIPTS"/device_facts.py --name {wildcards.device}'
        " --device {params.settings:q} --out {output} > {log} 2>&1"


rule measure_device:
    """Run the networks of a study on a device, over ssh.

    An interruption keeps the pieces that are here; the next run goes on from them.
    """
    input:
        unpack(to_measure),
    output:
        directory(f"{DEVICE}/measured"),
    log:
        f"{DEVICE}/measure_device.log",
    wildcard_constraints:
        device=any_of(OVER_SSH),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(1000),
        runtime=growing(240),
    params:
        code=code("measure_device"),
        settings=device_settings,
        jobs=device_jobs_options,
    shell:
        'python "$SCRIPTS"/measure_device.py --name {wildcards.device}'
        " --device {params.settings:q} {params.jobs} --out {output} > {log} 2>&1"


rule emulate_device:
    """Run the networks of a study on an emulated core of ARM, as on a device. It needs `make arm`.

    An interruption keeps the pieces that are there; the next run goes on from them.
    """
    input:
        unpack(to_measure),
    output:
        directory(f"{DEVICE}/measured"),
    log:
        f"{DEVICE}/emulate_device.log",
    benchmark:
        f"{DEVICE}/emulate_device.benchmark.tsv"
    wildcard_constraints:
        device=any_of(EMULATED),
    conda:
        ENVIRONMENT
    threads: PREDICTION_THREADS
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        code=code("emulate_device"),
        core=device_core,
        jobs=device_jobs_options,
        emulation=emulation_state,
    shell:
        'python "$SCRIPTS"/emulate_device.py --core {params.core} {params.jobs}'
        " --threads {threads} --out {output} > {log} 2>&1"


rule device_result:
    """Score what a device gave back, and say which network to ship for it. On request only: nothing else reads it."""
    input:
        unpack(to_score),
    output:
        result=f"{DEVICE}/result.json",
        page=f"{DEVICE}/result.md",
        html=report(
            f"{DEVICE}/result.html",
            category="Devices",
            labels=STUDY | {"device": "{device}"},
        ),
    log:
        f"{DEVICE}/device_result.log",
    benchmark:
        f"{DEVICE}/device_result.benchmark.tsv"
    wildcard_constraints:
        device=any_of(config["devices"]),
    conda:
        ENVIRONMENT
    threads: PREDICTION_THREADS
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("device_result"),
        models=device_models_options,
        rows=all_device_rows_options,
        core=core_option,
        settings=study_settings("certificate"),
        tolerance=study_settings("tolerance"),
    shell:
        'python "$SCRIPTS"/device_result.py --name {wildcards.device} --study {wildcards.study}'
        " {params.core} {params.models} {params.rows} --annotations {input.annotations:q}"
        " --detections {input.detections:q} --threads {threads}"
        " --resamples {params.settings[resamples]} --seed {params.settings[seed]}"
        " --confidence {params.settings[confidence]}"
        " --oks-loss {params.tolerance[oks_loss]} --ap-loss {params.tolerance[ap_loss]}"
        " --out {output.result} --out-page {output.page} > {log} 2>&1"
