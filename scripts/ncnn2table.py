"""Calibrate an ncnn model on crops: write the table of INT8 scales, as ncnn's own ncnn2table does."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_record_option
from posequant.workflow.settings.quantize import METHODS


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--param", type=Path, required=True, help="the float model's .param")
    parser.add_argument("--bin", type=Path, required=True, help="the float model's .bin")
    add_record_option(parser)
    parser.add_argument(
        "--crops", type=Path, required=True, help="folder with the crops, float32 .npy tensors, and their list.txt"
    )
    parser.add_argument("--method", choices=METHODS, default="kl", help="how activations are clipped (default: kl)")
    parser.add_argument("--out", type=Path, required=True, help="the calibration table to write")
    parser.add_argument(
        "--keep-float",
        nargs="+",
        default=[],
        metavar="LAYER",
        help="names of layers to leave out, so that they stay float",
    )
    parser.add_argument("--threads", type=int, default=1, help="how many crops are computed at a time (default: 1)")
    parser.add_argument("--tool", help="the official ncnn2table to run in place of this implementation")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.verify import as_made
    from posequant.quantize.ncnn2table import write_table

    if arguments.record:
        as_made([arguments.param, arguments.bin, arguments.record])

    write_table(
        arguments.out,
        arguments.param,
        arguments.bin,
        arguments.crops,
        arguments.method,
        threads=arguments.threads,
        keep_float=arguments.keep_float,
        tool=arguments.tool,
    )


if __name__ == "__main__":
    main()
