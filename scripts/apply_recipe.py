"""Prepare an ncnn model for INT8 by a recipe: write the float model and the table of scales that ncnn2int8 takes."""

import argparse
import json
from pathlib import Path

from posequant.errors import reports_input_errors
from posequant.model_spec import ModelSpec
from posequant.recipe.recipe import STEPS, apply_recipe_to_files


@reports_input_errors
def main() -> None:
    """Read the command line and apply the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--param", type=Path, required=True, help="the float model's .param")
    parser.add_argument("--bin", type=Path, required=True, help="the float model's .bin")
    parser.add_argument(
        "--crops", type=Path, required=True, help="folder with the crops, float32 .npy tensors, and their list.txt"
    )
    parser.add_argument(
        "--recipe",
        type=json.loads,
        required=True,
        help=f"JSON list of steps as in config.yaml, each {{NAME: {{SETTING: VALUE, ...}}}}; {', '.join(STEPS)}",
    )
    parser.add_argument("--model", type=Path, help="the model's model.json, for recipes with a budget")
    parser.add_argument("--threads", type=int, default=1, help="how many crops are computed at a time (default: 1)")
    parser.add_argument("--out-param", type=Path, required=True, help="the prepared .param to write")
    parser.add_argument("--out-bin", type=Path, required=True, help="the prepared .bin to write")
    parser.add_argument("--out-table", type=Path, required=True, help="the calibration table to write")
    parser.add_argument("--record", type=Path, required=True, help="JSON to write: recipe, layers in float, versions")
    parser.add_argument("--markdown", type=Path, required=True, help="the record as a page, to write")
    args = parser.parse_args()
    apply_recipe_to_files(
        args.recipe,
        args.param,
        args.bin,
        args.crops,
        args.threads,
        (args.out_param, args.out_bin),
        args.out_table,
        args.record,
        args.markdown,
        ModelSpec.load(args.model) if args.model else None,
    )


if __name__ == "__main__":
    main()
