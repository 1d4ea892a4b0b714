"""Find where the error of an ncnn INT8 network comes from.

Each layer of the INT8 network is put into the float network, alone, and the network is made INT8 step by step: weights
in 8 bits, weights with the bits of the artifact, activations. What that does to the output and to the poses is measured
on calibration crops against the float network; no labels are needed.
"""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_pair_options


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pair_options(parser)
    parser.add_argument(
        "--crops", type=Path, required=True, help="folder of the calibration crops, with their list.txt"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=16,
        metavar="N",
        help="measure on the first N crops, fewer where memory does not hold as many (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="how many crops are computed at a time (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="attribution to write (JSON)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.attribute.attribute import attribute
    from posequant.base.files import write_json

    attribution = attribute(
        param=arguments.param,
        bin_=arguments.bin,
        int8_param=arguments.int8_param,
        int8_bin=arguments.int8_bin,
        model=arguments.model,
        crops=arguments.crops,
        variant=arguments.variant,
        limit=arguments.limit,
        threads=arguments.threads,
    )
    write_json(arguments.out, attribution)


if __name__ == "__main__":
    main()
