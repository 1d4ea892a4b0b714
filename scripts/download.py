"""Download a file, whole or not at all: a broken download goes on where it stopped, a corrupt one is fetched again."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.errors import InputError


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "url",
        help="address of the file; #sha256=HEX at its end, or a name such as weights-4ec713ba_20200709.pth, says what "
        "its SHA-256 begins with",
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.fetch.download import fetch
    from posequant.workflow.sources import parse_source

    source = parse_source(arguments.url)
    if source is None:
        raise InputError(f"{arguments.url}: not an address; those begin with http:// or https://")
    fetch(source, arguments.out)


if __name__ == "__main__":
    main()
