"""Take configs of mmpose through every stage with random weights, and tabulate how far each gets."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--configs",
        nargs="+",
        required=True,
        metavar="CONFIG",
        help="mmpose configs: paths, or names of those that mmpose ships",
    )
    parser.add_argument("--out", type=Path, required=True, help="Markdown to write")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.survey.survey import markdown, survey_all

    records = survey_all(arguments.configs)
    with whole(arguments.out) as draft:
        draft.write_text(markdown(records))


if __name__ == "__main__":
    main()
