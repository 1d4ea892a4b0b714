"""Put the results of the networks of a study together, as one file."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--networks", type=Path, nargs="+", required=True, help="result of every network, in order (JSON)"
    )
    parser.add_argument("--out", type=Path, required=True, help="the result to write (JSON)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.report.collect import merge
    from posequant.report.result import Result

    merge([Result.read(path) for path in arguments.networks]).write(arguments.out)


if __name__ == "__main__":
    main()
