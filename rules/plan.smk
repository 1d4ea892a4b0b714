# How long a study takes: into how many shards it is cut, and what a run says before it starts.


@cache
def network(study: str, model: str) -> Network | None:
    """What a network takes, as far as it can be told before anything is made."""
    settings = config["studies"][study]["models"][model]
    key = "onnx" if settings["source"] == "onnx" else "checkpoint"
    weights = Path(located(settings[key], study, f"models.{model}.{key}"))
    description = None
    if "config" in settings:
        description = Path(located(settings["config"], study, f"models.{model}.config"))
    return network_of(
        weights=weights.stat().st_size if weights.is_file() else None,
        pixels=input_pixels(settings, description),
        gmac=settings.get("gmac"),
    )


@cache
def people(study: str) -> int | None:
    """How many people are evaluated, about; None while that is not known."""
    if drawn := config["studies"][study]["dataset"].get("synthetic"):
        return round(drawn["val_images"] * DRAWN)
    wildcards = SimpleNamespace(study=study)
    return people_in(
        Path(dataset("val", "annotations")(wildcards)),
        next(map(Path, detections(wildcards)), None),
    )


@cache
def shards_of(study: str, model: str) -> int:
    """Into how many shards the predictions of a model are cut, the same for all its rows.

    On a worker it comes out as in the main process, and after an interruption as before: shards that are there decide.
    """
    settings = config["studies"][study]
    folder = Path(RESULTS.format(study=study, model=model))
    earlier = [
        folder / "crops",
        *(folder / f"{row}/shards" for row in rows_of(study, model)),
    ]
    if count := settings.get("shards") or shards_in(earlier):
        return count
    size = network(study, model)
    if size is None or people(study) is None:
        return 1
    seconds = [row_seconds(row, size, config, study) for row in rows_of(study, model)]
    return number_of_shards(
        people(study),
        max(seconds, default=0.0),
        settings["shard_minutes"],
        threads=PREDICTION_THREADS,
    )


def shards(wildcards) -> list[str]:
    """Input function: the predictions of all shards of the evaluation set."""
    count = shards_of(wildcards.study, wildcards.model)
    return expand(f"{SHARDS}.npz", shard=range(1, count + 1), shards=count, **wildcards)


def first_crops(wildcards) -> str:
    """Input function: the crops of the first shard."""
    count = shards_of(wildcards.study, wildcards.model)
    return CROPS.format(**wildcards, shard=1, shards=count)


def first_shard_option(wildcards) -> str:
    """Option that says of how many shards it is the first."""
    return f"--shards {shards_of(wildcards.study, wildcards.model)}"


def planned(job, after: tuple[int, ...]) -> Job:
    """What a job takes and writes, about; it waits for those at the places `after`."""
    study, model = (job.wildcards.get(name, "") for name in ("study", "model"))
    cost = work(
        job.rule.name,
        dict(job.wildcards.items()),
        config,
        network=network(study, model) if model else None,
        people=people(study) if study else None,
    )
    return planned_job(job.rule.name, cost, job.output, job.threads, after)


def refuse_to_prune(dag) -> None:
    """End a run that is to prune a study that is not finished; Snakemake says what it lacks."""
    rules = Counter(job.rule.name for job in dag.needrun_jobs())
    missing = rules.total() - rules["prune"]
    if rules["prune"] and missing:
        page = f"results/{config['study']}/result.md"
        raise WorkflowError(
            f"{page} is not up to date: {missing} jobs are still to run. Nothing was removed. Finish the study first: "
            f"snakemake -c all {page}"
        )


def estimate(dag) -> tuple[str, str]:
    """What is said of the jobs that are to run: their time and disk, and a warning if that is too little."""
    waiting = {job: place for place, job in enumerate(dag.needrun_jobs())}
    jobs = [
        planned(
            job,
            tuple(waiting[one] for one in dag.dependencies[job] if one in waiting),
        )
        for job in waiting
    ]
    limits = workflow.resource_settings
    # A cluster's cores are not known; so many jobs run at once.
    cores = (
        min(limits.cores or 1, os.cpu_count() or 1)
        if workflow.local_exec
        else (limits.nodes or 1) * PREDICTION_THREADS
    )
    return announcement(jobs, cores, shutil.disk_usage(".").free)
