"""Copy the page of a study to another folder; what it links to stays where it is."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, required=True, help="the page of a study (Markdown)")
    parser.add_argument("--out", type=Path, required=True, help="the copy to write")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    import os

    from posequant.base.files import require_file, whole
    from posequant.report.links import relocated

    folder = os.path.relpath(arguments.page.parent, arguments.out.parent)
    moved = relocated(require_file(arguments.page).read_text(), folder)
    with whole(arguments.out) as draft:
        draft.write_text(moved)


if __name__ == "__main__":
    main()
