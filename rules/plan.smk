# How long a study takes: into how many shards it is cut, and what a run says before it starts.


@cache
def network(study: str, model: str) -> Network | None:
    """What a network takes, as far as it can be told before anything is made."""
    settings = config["studies"][study]["models"][model]
    key = {"onnx": "onnx", "ncnn": "bin"}.get(settings["source"], "checkpoint")
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
def everybody(study: str) -> tuple[int | None, int | None]:
    """How many people, or boxes of them, the evaluation set has, and how many annotated people; None while unknown."""
    if drawn := config["studies"][study]["dataset"].get("synthetic"):
        count = round(drawn["val_images"] * DRAWN)
        return count, count
    wildcards = SimpleNamespace(study=study)
    annotations = Path(dataset("val", "annotations")(wildcards))
    boxes = next(map(Path, detections(wildcards)), None)
    return people_in(annotations, boxes), people_in(annotations, None)


def people(study: str) -> int | None:
    """How many people, or boxes of them, are evaluated, about; None while that is not known."""
    wanted = config["studies"][study]["dataset"]["val"].get("people")
    return evaluated(*everybody(study), wanted)


@cache
def measured(study: str, model: str) -> Network | None:
    """The same as `network`, with what an earlier run measured of it here."""
    known = network(study, model)
    latency = Path(RESULTS.format(study=study, model=model), "latency.json")
    rows = measured_rows(latency)
    return replace(known or Network(), measured=rows) if rows else known


@cache
def shards_of(study: str, model: str) -> int:
    """Into how many shards the predictions of a model are cut, the same for all its rows.

    On a worker it comes out as in the main process, and after an interruption as before: shards that are there decide.
    """
    settings, subset = config["studies"][study], subset_of(study)
    folder = Path(RESULTS.format(study=study, model=model))
    earlier = [
        folder / "crops" / subset,
        *(folder / f"{row}/shards" / subset for row in rows_of(study, model)),
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
    return expand(
        f"{SHARDS}.npz",
        subset=subset_of(wildcards.study),
        shard=range(1, count + 1),
        shards=count,
        **wildcards,
    )


def first_crops(wildcards) -> str:
    """Input function: the crops of the first shard."""
    count = shards_of(wildcards.study, wildcards.model)
    subset = subset_of(wildcards.study)
    return CROPS.format(**wildcards, subset=subset, shard=1, shards=count)


def first_shard_option(wildcards) -> str:
    """Option that says of how many shards it is the first."""
    return f"--shards {shards_of(wildcards.study, wildcards.model)}"


def planned(job, after: tuple[int, ...], count: int | None = None) -> Job:
    """What a job takes and writes, about; it waits for those at the places `after`.

    With a `count`, so many people of its study are evaluated, in place of those that the configuration says.
    """
    wildcards = dict(job.wildcards.items())
    study, model = (wildcards.get(name, "") for name in ("study", "model"))
    whom = people(study) if study else None
    if count is not None and whom is not None:
        if "shards" in wildcards:
            place = int(wildcards["shard"]), int(wildcards.pop("shards"))
            count = part_of(*place, whom, count)
            if not count:
                return Job(0, after=after)
        whom = count
    cost = work(
        job.rule.name,
        wildcards,
        config,
        network=measured(study, model) if model else None,
        people=whom,
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


def require_vulkan(dag) -> None:
    """End a run at once that has rows on Vulkan, where this machine has no such device.

    Where jobs run elsewhere, or in environments of their own, they look for it themselves.
    """
    if not workflow.local_exec or workflow.deployment_settings.deployment_method:
        return
    jobs = list(dag.needrun_jobs())
    rows = {job.wildcards.get("variant") for job in jobs}
    for job in jobs:
        if job.rule.name in ("latency", "throughput"):
            rows |= set(rows_of(job.wildcards.study, job.wildcards.model))
    rows &= set(VULKAN)
    if not rows:
        return
    command = [sys.executable, ROOT / "scripts" / "vulkan_devices.py"]
    done = subprocess.run(
        [*command, *shlex.split(vulkan_option(rows))], capture_output=True, text=True
    )
    if done.returncode:
        *_, said = done.stderr.split("error: ")
        raise WorkflowError(f"{', '.join(sorted(rows))}: {said.strip()}")


def unknown(study: str, models) -> str:
    """What an estimate does not know of a study before it is fetched; empty where it knows all."""
    wildcards = SimpleNamespace(study=study)
    files = [dataset("val", "annotations")(wildcards), *detections(wildcards)]
    missing = [file for file in files if not Path(file).is_file()]
    said = []
    if people(study) is None:
        said.append(f"how many people are evaluated ({', '.join(missing)})")
    said += [f"the size of {model}" for model in models if not measured(study, model)]
    return f"Not known before it is fetched: {'; '.join(said)}." if said else ""


def study_in_full(waiting: dict, cores: int, jobs_of) -> str:
    """What is said of the study whose predictions are to run, if it takes long with all people, and what is unknown."""
    rows = sorted(
        {
            (job.wildcards.study, job.wildcards.model, job.wildcards.variant)
            for job in waiting
            if job.rule.name == "predict"
        }
    )
    if len({study for study, _, _ in rows}) != 1:
        return ""
    study = rows[0][0]
    count, annotated = everybody(study)
    said = unknown(study, sorted({model for _, model, _ in rows}))
    if count is None:
        return said
    settings = config["studies"][study]
    quick = None
    if "people" not in settings["dataset"]["val"] and annotated:

        def quick(wanted: int) -> list[Job]:
            return jobs_of(evaluated(count, annotated, wanted))

    what = size_of_study(
        count, settings["protocol"]["boxes"] == "detections", [row[1:] for row in rows]
    )
    return " ".join(
        filter(None, (long_run(what, jobs_of(count), cores, quick, annotated), said))
    )


def estimate(dag) -> tuple[list[str], str]:
    """What is said of the jobs that are to run: their time and disk, and a warning if that is too little."""
    waiting = {job: place for place, job in enumerate(dag.needrun_jobs())}
    links = {
        job: tuple(waiting[one] for one in dag.dependencies[job] if one in waiting)
        for job in waiting
    }

    def jobs_of(count: int | None = None) -> list[Job]:
        return [planned(job, links[job], count) for job in waiting]

    limits = workflow.resource_settings
    # A cluster's cores are not known; so many jobs run at once.
    cores = (
        min(limits.cores or 1, os.cpu_count() or 1)
        if workflow.local_exec
        else (limits.nodes or 1) * PREDICTION_THREADS
    )
    said, warning = announcement(jobs_of(), cores, shutil.disk_usage(".").free)
    in_full = study_in_full(waiting, cores, jobs_of)
    return [line for line in (said, in_full) if line], warning
