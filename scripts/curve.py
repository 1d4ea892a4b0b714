"""Calibrate an ncnn network on several numbers and choices of people, and tell what that does to INT8."""

import argparse
from pathlib import Path

from posequant.base.errors import reports_input_errors
from posequant.recipe.curve import Split, measure_curve, parse_recipe, write_curve


@reports_input_errors
def main() -> None:
    """Read the command line, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--title", required=True, help="of the page and the picture")
    parser.add_argument("--people", type=int, nargs="+", required=True, help="numbers of people to calibrate on")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="seeds of their choice")
    parser.add_argument("--recipe", type=parse_recipe, required=True, help="kl, aciq, or a JSON list of steps")
    parser.add_argument("--model", type=Path, required=True, help="the model's model.json")
    parser.add_argument("--param", type=Path, required=True, help="the float model's .param")
    parser.add_argument("--bin", type=Path, required=True, help="the float model's .bin")
    parser.add_argument("--train-annotations", type=Path, required=True, help="of the people to choose from")
    parser.add_argument("--train-images", type=Path, required=True, help="folder of all their images")
    parser.add_argument("--annotations", type=Path, required=True, help="of the people to evaluate on")
    parser.add_argument("--images", type=Path, required=True, help="folder of their images")
    parser.add_argument("--reference", type=Path, required=True, help="predictions of the FP32 network for them")
    parser.add_argument("--threads", type=int, default=1, help="how many crops are computed at a time (default: 1)")
    parser.add_argument("--table", type=Path, required=True, help="CSV to write")
    parser.add_argument("--figure", type=Path, required=True, help="picture to write (SVG)")
    parser.add_argument("--markdown", type=Path, required=True, help="page to write, beside the picture")
    args = parser.parse_args()
    points = measure_curve(
        sizes=args.people,
        seeds=args.seeds,
        recipe=args.recipe,
        model=args.model,
        param=args.param,
        bin_=args.bin,
        train=Split(args.train_annotations, args.train_images),
        val=Split(args.annotations, args.images),
        reference=args.reference,
        threads=args.threads,
    )
    write_curve(points, args.title, args.table, args.figure, args.markdown)


if __name__ == "__main__":
    main()
