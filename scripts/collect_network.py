"""Put what evaluation, measurement and certification wrote of networks of a study together, as one file."""

import argparse
import json
import os
from pathlib import Path

from posequant.base.command import command
from posequant.base.errors import InputError


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument(
        "--settings", type=json.loads, required=True, metavar="JSON", help="what the configuration says of the study"
    )
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics of every row, in order")
    parser.add_argument("--logs", type=Path, nargs="+", required=True, help="log of every row, in the same order")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="description of every model")
    parser.add_argument("--latencies", type=Path, nargs="+", required=True, help="costs of every model's rows")
    parser.add_argument("--operators", type=Path, nargs="+", required=True, help="operator table of every model")
    parser.add_argument("--calibration", type=Path, required=True, help="the calibration set")
    for name, what in (
        ("certificates", "certificates of rows"),
        ("recipes", "records of the recipes of rows"),
        ("attributions", "attributions of rows"),
        ("pictures", "lists of the pictures of rows"),
    ):
        parser.add_argument(
            f"--{name}", type=Path, nargs="*", default=[], help=f"{what}, each in its row's folder beside its page"
        )
    parser.add_argument(
        "--links-from", type=Path, metavar="FOLDER", help="folder that links start at; the default is that of --out"
    )
    parser.add_argument("--out", type=Path, required=True, help="the result to write (JSON)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import read_json, require_file
    from posequant.base.model_spec import ModelSpec
    from posequant.report.collect import NetworkRecords, Record, RowRecords, collect
    from posequant.report.result import Links

    def link(path: Path) -> str:
        return os.path.relpath(path, arguments.links_from or arguments.out.parent)

    def record(path: Path) -> Record:
        return Record(path, read_json(path))

    def record_if_any(path: Path | None) -> Record | None:
        return record(path) if path else None

    # By the folder of the row that they belong to.
    made = {
        name: {path.parent: path for path in getattr(arguments, name)}
        for name in ("certificates", "recipes", "attributions", "pictures")
    }
    rows: dict[str, list[RowRecords]] = {}
    for path, log in zip(arguments.metrics, arguments.logs, strict=True):
        require_file(log, f"Make it again with: snakemake -c4 -f {path}")
        metrics = record(path)
        found = {name: of_rows.get(path.parent) for name, of_rows in made.items()}
        pages = {name: file and link(file.with_suffix(".md")) for name, file in found.items()}
        rows.setdefault(metrics.content["model"], []).append(
            RowRecords(
                metrics,
                Links(
                    log=link(log),
                    certificate=pages["certificates"],
                    recipe=pages["recipes"],
                    attribution=pages["attributions"],
                    pictures=pages["pictures"],
                ),
                *(record_if_any(found[name]) for name in ("certificates", "recipes", "attributions")),
            )
        )
    networks = []
    for model, latency, operators in zip(arguments.models, arguments.latencies, arguments.operators, strict=True):
        spec = ModelSpec.load(model)
        if spec.name not in rows:
            raise InputError(f"{model}: there are no metrics of this network. Give those of its rows.")
        networks.append(NetworkRecords(spec, link(operators), record(latency), rows[spec.name]))
    collect(arguments.study, arguments.settings, networks, read_json(arguments.calibration)).write(arguments.out)


if __name__ == "__main__":
    main()
