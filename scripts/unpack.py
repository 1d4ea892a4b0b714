"""Take a file or a folder out of a zip archive, whole or not at all."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="zip file")
    parser.add_argument("--member", default="", help="path of a file or folder inside (default: everything)")
    parser.add_argument("--out", type=Path, required=True, help="file or folder to write")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.fetch.unpack import unpack

    with whole(arguments.out) as draft:
        unpack(arguments.archive, arguments.member, draft)


if __name__ == "__main__":
    main()
