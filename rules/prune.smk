# What a finished study needs no more.


rule prune:
    """Remove kept crops, predictions of shards, prepared networks and unpacked archives of the study that `study` names."""
    input:
        f"results/{config['study']}/result.md",
    log:
        f"results/{config['study']}/prune.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
        runtime=10,
    params:
        crops=CROPS.format(
            study=config["study"], model="*", subset="**/", shard="*", shards="*"
        ),
        patterns=prunable(),
    shell:
        'python "$SCRIPTS"/prune.py --crops {params.crops:q} --remove {params.patterns:q}'
        " > {log} 2>&1 && cat {log}"
