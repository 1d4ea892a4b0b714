"""List the networks that a study can name: those of mmpose's model index."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--survey", type=Path, required=True, help="page of the survey, for the state of each network: docs/models.md"
    )
    parser.add_argument(
        "--find", nargs="*", default=[], metavar="WORD", help="show only the lines that hold all of these words"
    )
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import require_file
    from posequant.base.model_index import networks
    from posequant.survey.listing import listing

    survey = require_file(arguments.survey, "`make survey` writes it.").read_text(encoding="utf-8")
    print(listing(networks(), survey, arguments.find))


if __name__ == "__main__":
    main()
