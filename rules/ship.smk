# What an app is built from. Made on request only: snakemake -c4 results/STUDY/MODEL/VARIANT/package.zip


rule package:
    """Pack a network with its description, its certificate, a golden person and programs that run it."""
    input:
        artifact=artifact,
        model=f"{RESULTS}/model.json",
        metrics=f"{RESULTS}/{{variant}}/metrics.json",
        certificate=own_certificate,
        table=own_table,
    output:
        f"{RESULTS}/{{variant}}/package.zip",
    log:
        f"{RESULTS}/{{variant}}/package.log",
    benchmark:
        f"{RESULTS}/{{variant}}/package.benchmark.tsv"
    wildcard_constraints:
        # No app runs PyTorch.
        variant=any_of(SHIPPED),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    params:
        code=code("package"),
        license=network_license_option,
    shell:
        'python "$SCRIPTS"/package.py --model {input.model} --artifact {input.artifact:q}'
        " --metrics {input.metrics} --certificate {input.certificate} --table {input.table}"
        ' --license "$SCRIPTS"/../LICENSE {params.license}'
        " --out {output} > {log} 2>&1"
