"""Write docs/scale.md: what planning costs, what jobs cost here, and a model of the study of COCO on many cores."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.command import command

if TYPE_CHECKING:
    from posequant.benchmark.scale import Planning
    from posequant.workflow.estimate import Job

ROOT = Path(__file__).parents[1]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "-c4", "--snakefile"]
OURS = [*SNAKEMAKE, str(ROOT / "Snakefile")]
PLAIN = [*SNAKEMAKE, str(ROOT / "scripts/posequant/benchmark/plain.smk")]
DETECTIONS = "data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
BOXES = 104_125
MINUTES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
# Of a cluster's queue, for each job.
OVERHEAD = 30.0
# Its weights are random: time does not tell them from trained ones. No row has a recipe, which takes an hour.
LARGE: dict[str, Any] = {
    "dataset": {"synthetic": {"train_images": 24, "val_images": 32, "seed": 0}},
    "calibration": {"people": 16},
    "models": {
        "hourglass52": {
            "source": "mmpose",
            "config": "td-hm_hourglass52_8xb32-210e_coco-256x256",
            "checkpoint": "hourglass52.pth",
            "gmac": 28.6,
        }
    },
    "variants": [
        *("pytorch", "onnxruntime", "onnxruntime-int8", "openvino", "openvino-int8"),
        *("ncnn", "ncnn-bf16", "ncnn-int8"),
    ],
}


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shards", type=int, nargs="+", default=[80, 900], help="shards of ten rows to plan (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="how often each is planned (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="page to write (Markdown)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.base.processor import this_processor
    from posequant.benchmark import scale

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planning = [plans(folder, shards, arguments.rounds) for shards in arguments.shards]
        jobs, shards = coco(folder)
        costs, rates = measurements(folder)
    with whole(arguments.out) as draft:
        draft.write_text(
            scale.page(
                cpu=this_processor().name,
                planning=scale.planning_table(planning),
                rates=rates,
                costs=costs,
                local=scale.shards_table(jobs, shards, 0),
                cluster=scale.shards_table(jobs, shards, OVERHEAD),
            )
        )


def plans(folder: Path, shards: int, rounds: int) -> "tuple[Planning, Planning]":
    """Return what it takes to plan the demo in so many shards, and a plain workflow of as many."""
    from posequant.benchmark.scale import plan_in_turn

    ours = [*OURS, "-n", "results/result.md", *with_study(folder, "demo", {"shards": shards})]
    first, second = plan_in_turn([ours, [*PLAIN, "-n", "--config", f"shards={shards}"]], folder, rounds)
    return first, second


def coco(folder: Path) -> "tuple[dict[float, list[Job]], dict[float, list[int]]]":
    """Return the jobs of the study of COCO, and how many shards each network has, for several sizes of the shards."""
    from posequant.benchmark.scale import dry_run, modelled_jobs, planned_jobs
    from posequant.workflow.costs import network_of

    (folder / DETECTIONS).parent.mkdir(parents=True)
    (folder / DETECTIONS).write_text(json.dumps([{"bbox": [0, 0, 1, 1]}] * BOXES))
    config = configuration()
    networks = {
        model: network_of(weights=379_000_000, pixels=int(model.rpartition("x")[2]) ** 2, gmac=settings["gmac"])
        for model, settings in config["studies"]["coco"]["models"].items()
    }
    jobs, shards = {}, {}
    for minutes in MINUTES:
        options = with_study(folder, "coco", {"shard_minutes": minutes})
        planned = planned_jobs(dry_run([*OURS, "-n", "results/coco/result.md", *options], folder)[0])
        jobs[minutes] = modelled_jobs(planned, config, networks, BOXES)
        cut = [job.wildcards["model"] for job in planned if job.rule == "evaluation_crops"]
        shards[minutes] = [cut.count(model) for model in networks]
    return jobs, shards


def measurements(folder: Path) -> tuple[dict[str, str], str]:
    """Run the demo, and Hourglass52 with few people; return tables of what their jobs took, and of the rows' speeds."""
    from posequant.benchmark.run_time import watch
    from posequant.benchmark.scale import costs_table, dry_run, modelled_jobs, planned_jobs, rates_table
    from posequant.workflow.costs import RATES, network_of

    (network,) = LARGE["models"].values()
    weights = folder / network["checkpoint"]
    script = str(ROOT / "scripts/random_weights.py")
    dry_run([sys.executable, script, "--config", network["config"], "--out", str(weights)], folder)
    demo = ROOT / "models/hourglass_demo/checkpoint.pth"
    networks = {
        "hourglass_demo": network_of(weights=demo.stat().st_size, pixels=128**2, gmac=None),
        "hourglass52": network_of(weights=weights.stat().st_size, pixels=256**2, gmac=network["gmac"]),
    }
    config = configuration(large=LARGE)
    tables = {}
    for title, study, people in (("The demo", "demo", 458), ("Hourglass52, 16 calibration people", "large", 48)):
        options = with_study(folder, study, config["studies"][study])
        run = [*OURS, f"results/{study}/result.md", *options]
        planned = planned_jobs(dry_run([*run, "-n"], folder)[0])
        estimated = modelled_jobs(planned, config, networks, people)
        done = watch(["env", "-C", str(folder), *run])
        if done.status:
            sys.exit(f"error: the study '{study}' failed; see above")
        tables[title] = costs_table(done.jobs, planned, estimated)
    rows = json.loads((folder / "results/large/hourglass52/latency.json").read_text())["rows"]
    assumed = {row: RATES[variant["backend"], variant["precision"]] for row, variant in config["variants"].items()}
    latencies = {row: measured["latency"]["median_ms"] for row, measured in rows.items()}
    return tables, rates_table(network["gmac"], latencies, assumed)


def configuration(**studies: Any) -> dict[str, Any]:
    """Return config.yaml with more studies, checked and filled in."""
    import yaml

    from posequant.workflow.study_config import validate_config

    config: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["studies"] |= studies
    validate_config(config)
    return config


def with_study(folder: Path, name: str, settings: dict[str, Any]) -> list[str]:
    """Write settings of a study to a file, and return the options that let Snakemake read it."""
    import yaml

    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"studies": {name: settings}}))
    return ["--configfile", str(file), "--config", f"study={name}"]


if __name__ == "__main__":
    main()
