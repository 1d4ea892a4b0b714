"""Calibrate an ncnn network on several numbers and choices of people, and measure the effect on INT8."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.recipe.target import add_target_options, chosen_target
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.recipe import Curve


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--title", required=True, help="title of the page and the picture")
    add_options(parser, Curve)
    parser.add_argument("--recipe", required=True, help="kl, aciq, or a JSON list of steps")
    add_target_options(parser)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--param", type=Path, required=True, help="the float model's .param")
    parser.add_argument("--bin", type=Path, required=True, help="the float model's .bin")
    parser.add_argument(
        "--train-annotations", type=Path, required=True, help="COCO keypoint annotations of the people to choose from"
    )
    parser.add_argument("--train-images", type=Path, required=True, help="folder of all their images")
    parser.add_argument(
        "--annotations", type=Path, required=True, help="COCO keypoint annotations of the people to evaluate on"
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of their images")
    parser.add_argument("--reference", type=Path, required=True, help="predictions of the FP32 network for them")
    parser.add_argument("--threads", type=int, default=1, help="how many crops are computed at a time (default: 1)")
    parser.add_argument("--out-table", type=Path, required=True, help="CSV to write")
    parser.add_argument("--out-figure", type=Path, required=True, help="picture to write (SVG; a PNG beside it)")
    parser.add_argument("--out-page", type=Path, required=True, help="page to write, beside the picture")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.measures import measure_for
    from posequant.base.model_spec import ModelSpec
    from posequant.recipe.curve import Split, measure_curve, parse_recipe, write_curve

    settings = chosen(Curve, arguments)
    points = measure_curve(
        sizes=settings.people,
        seeds=settings.seeds,
        recipe=parse_recipe(arguments.recipe),
        target=chosen_target(arguments),
        model=arguments.model,
        param=arguments.param,
        bin_=arguments.bin,
        train=Split(arguments.train_annotations, arguments.train_images),
        val=Split(arguments.annotations, arguments.images),
        reference=arguments.reference,
        threads=arguments.threads,
    )
    write_curve(
        points,
        arguments.title,
        arguments.out_table,
        arguments.out_figure,
        arguments.out_page,
        measure=measure_for(ModelSpec.load(arguments.model).keypoints.sigmas),
    )


if __name__ == "__main__":
    main()
