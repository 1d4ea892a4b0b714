"""Render the tables of a study as Markdown from what evaluation and measurement wrote."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from posequant.base.command import command
from posequant.base.errors import InputError


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics of every row, in order")
    parser.add_argument("--latencies", type=Path, nargs="+", required=True, help="latencies of every model's rows")
    parser.add_argument("--logs", type=Path, nargs="+", required=True, help="log of every row, in the same order")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="description of every model")
    parser.add_argument("--operators", type=Path, nargs="+", required=True, help="operator table of every model")
    parser.add_argument("--architectures", nargs="+", required=True, help="name of every model in the Arch column")
    parser.add_argument(
        "--published",
        type=json.loads,
        required=True,
        metavar="JSON",
        help="list of the published figures of every model",
    )
    parser.add_argument("--calibration", type=Path, required=True, help="the calibration set")
    parser.add_argument(
        "--certificates", type=Path, nargs="*", default=[], help="certificates of rows, beside their pages (.md)"
    )
    parser.add_argument(
        "--recipes", type=Path, nargs="*", default=[], help="pages of the recipes of rows, beside their certificates"
    )
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--out-figure", type=Path, required=True, help="picture to write (SVG); the page shows it")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import read_json, require_file, whole
    from posequant.base.model_spec import ModelSpec
    from posequant.report.figure import draw
    from posequant.report.page import Certificate, Model, Row, render

    def link(path: Path) -> str:
        return os.path.relpath(path, arguments.out.parent)

    recipes = {path.parent: link(path) for path in arguments.recipes}
    certificates = {}
    for path in arguments.certificates:
        content = read_json(path)
        certificates[content["model"], content["variant"]] = Certificate(
            content, link(path.with_suffix(".md")), recipes.get(path.parent)
        )
    rows: dict[str, list[Row]] = {}
    costs: dict[tuple[str, str], dict[str, Any]] = {}
    for path in arguments.latencies:
        measured = read_json(path)
        costs |= {(measured["model"], name): cost | {"cpu": measured["cpu"]} for name, cost in measured["rows"].items()}
    for metrics_path, log in zip(arguments.metrics, arguments.logs, strict=True):
        metrics = read_json(metrics_path)
        cost = costs.get((metrics["model"], metrics["variant"]))
        if cost is None:
            paths = ", ".join(map(str, arguments.latencies))
            raise InputError(f"{metrics_path}: {paths} say nothing of this row's latency. Delete them and run again.")
        require_file(log, f"Make it again with: snakemake -c4 -f {metrics_path}")
        artifact = metrics["sha256"]["artifact"]
        certificate = certificates.get((metrics["model"], metrics["variant"]))
        for said, of_whom in (
            (cost.get("sha256"), "latency"),
            (certificate.content["sha256"]["artifact"] if certificate else artifact, "certificate"),
        ):
            if said != artifact:
                raise InputError(
                    f"{metrics_path}: made with another network than the row's {of_whom}. Delete both and run again."
                )
        row = Row(metrics, cost, link(log), certificate)
        rows.setdefault(metrics["model"], []).append(row)
    specs = [ModelSpec.load(path) for path in arguments.models]
    models = [
        Model(spec, architecture, link(operators), rows[spec.name], published)
        for spec, architecture, operators, published in zip(
            specs, arguments.architectures, arguments.operators, arguments.published, strict=True
        )
    ]
    page = render(models, read_json(arguments.calibration), link(arguments.out_figure))
    with whole(arguments.out_figure) as figure, whole(arguments.out) as draft:
        draw(models, figure)
        draft.write_text(page)


if __name__ == "__main__":
    main()
