"""Measure how long each layer of an ncnn INT8 network takes, in float and in INT8, and what lies between them."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_pair_options


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_pair_options(parser)
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops to run on")
    parser.add_argument("--rounds", type=int, default=30, help="rounds to time (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=15, help="time after which no further round starts (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="times to write (JSON)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.attribute.times import measure_times
    from posequant.base.files import write_json
    from posequant.data.crop_files import load_crops

    times = measure_times(
        full=(arguments.param, arguments.bin),
        int8=(arguments.int8_param, arguments.int8_bin),
        model=arguments.model,
        variant=arguments.variant,
        crops=load_crops(arguments.crops, limit=8),
        rounds=arguments.rounds,
        seconds=arguments.seconds,
    )
    write_json(arguments.out, times)


if __name__ == "__main__":
    main()
