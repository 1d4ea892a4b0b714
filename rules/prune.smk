# What a finished study needs no more.


rule prune:
    """Remove kept crops, predictions of shards, prepared networks and unpacked archives of the study that `study` names."""
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
        runtime=10,
    params:
        page=f"results/{config['study']}/result.md",
        metrics=metrics_of_the_study(),
        crops=CROPS.format(study=config["study"], model="*", shard="*", shards="*"),
        patterns=prunable(),
    shell:
        'python "$SCRIPTS"/prune.py --page {params.page} --metrics {params.metrics}'
        " --crops {params.crops:q} --remove {params.patterns:q}"
