"""Prepare an ncnn model for INT8 by a recipe: write the float model and the table of scales that ncnn2int8 takes."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_record_option
from posequant.recipe.target import add_target_options, chosen_target
from posequant.workflow.settings.recipe import Recipe


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--param", type=Path, required=True, help="the float model's .param")
    parser.add_argument("--bin", type=Path, required=True, help="the float model's .bin")
    add_record_option(parser)
    parser.add_argument("--crops", type=Path, required=True, help="folder that calibration_crops.py wrote")
    parser.add_argument(
        "--distillation", type=Path, nargs="?", help="folder that distillation_crops.py wrote, for the step distill"
    )
    parser.add_argument(
        "--recipe",
        metavar="JSON",
        required=True,
        help="list of steps as in config.yaml, each {NAME: {SETTING: VALUE, ...}}",
    )
    add_target_options(parser)
    parser.add_argument("--threads", type=int, default=1, help="how many crops are computed at a time (default: 1)")
    parser.add_argument("--out-param", type=Path, required=True, help="the prepared .param to write")
    parser.add_argument("--out-bin", type=Path, required=True, help="the prepared .bin to write")
    parser.add_argument("--out-table", type=Path, required=True, help="the calibration table to write")
    parser.add_argument(
        "--out-reference-param",
        type=Path,
        required=True,
        help=".param to write of the float network with the prepared one's layers, nothing rounded or corrected",
    )
    parser.add_argument("--out-reference-bin", type=Path, required=True, help="its .bin to write")
    parser.add_argument("--out-record", type=Path, required=True, help="what was done and measured, to write (JSON)")
    parser.add_argument(
        "--out-figure", type=Path, required=True, help="picture of what was measured, to write (SVG; a PNG beside it)"
    )
    parser.add_argument("--out-page", type=Path, required=True, help="the same as a page to write, beside the picture")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.figures import save
    from posequant.base.files import write_json
    from posequant.base.html import write_page
    from posequant.base.verify import as_made
    from posequant.recipe.figure import draw
    from posequant.recipe.page import render
    from posequant.recipe.recipe import apply_recipe_to_files
    from posequant.workflow.settings.base import checked_json

    if arguments.record:
        as_made([arguments.param, arguments.bin, arguments.record])

    record = apply_recipe_to_files(
        checked_json(Recipe, arguments.recipe, option="--recipe"),
        model=arguments.model,
        param=arguments.param,
        bin_=arguments.bin,
        crops=arguments.crops,
        distillation=arguments.distillation,
        checkpoint=arguments.out_param.with_name(".distill.checkpoint"),
        threads=arguments.threads,
        out=(arguments.out_param, arguments.out_bin),
        table=arguments.out_table,
        target=chosen_target(arguments),
        reference=(arguments.out_reference_param, arguments.out_reference_bin),
    )
    drawing, name = draw(record), arguments.out_figure.name
    save(drawing.figure, arguments.out_figure)
    write_page(arguments.out_page, render(record, {name: drawing}), {name: arguments.out_figure})
    write_json(arguments.out_record, record)


if __name__ == "__main__":
    main()
