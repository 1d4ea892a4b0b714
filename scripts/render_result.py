"""Render the tables of a study as Markdown from what evaluation and measurement wrote."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from posequant.base.errors import InputError, reports_input_errors


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics of every row, in order")
    parser.add_argument("--latencies", type=Path, nargs="+", required=True, help="latency of every row, alike")
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


@reports_input_errors
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
    for metrics_path, latency_path, log in zip(arguments.metrics, arguments.latencies, arguments.logs, strict=True):
        metrics, cost = read_json(metrics_path), read_json(latency_path)
        require_same_row(metrics, cost, latency_path)
        require_file(log, f"Make it again with: snakemake -c4 -f {metrics_path}")
        row = Row(metrics, cost, link(log), certificates.get((metrics["model"], metrics["variant"])))
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


def require_same_row(metrics: dict[str, Any], cost: dict[str, Any], latency_path: Path) -> None:
    """Raise `InputError` unless metrics and cost are of the same model and variant."""
    for key in ("model", "variant"):
        if metrics[key] != cost[key]:
            raise InputError(f"{latency_path}: is of {key} '{cost[key]}', its metrics of '{metrics[key]}'; delete it")


if __name__ == "__main__":
    main()
