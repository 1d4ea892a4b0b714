"""Run a command, such as snakemake, and print where its time went: start-up, imports, work and waiting, by rule."""

import argparse
import sys
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Markdown file to write, too")
    parser.add_argument("command", nargs="+", help="the command, behind --")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.benchmark.run_time import describe, watch

    run = watch(arguments.command)
    page = describe(run)
    print(f"\n{page}", end="")
    if arguments.out:
        with whole(arguments.out) as draft:
            draft.write_text(page)
    sys.exit(run.status)


if __name__ == "__main__":
    main()
