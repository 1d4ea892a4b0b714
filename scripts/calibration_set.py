"""Choose the training people to calibrate on; refuse any that are in the evaluation set."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.data import Calibration


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--annotations", type=Path, required=True, help="COCO keypoint annotations of the training split"
    )
    parser.add_argument(
        "--evaluation-annotations", type=Path, required=True, help="those of the split that is evaluated on"
    )
    add_options(parser, Calibration)
    parser.add_argument("--out", type=Path, required=True, help="chosen people to write, .json")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.data.calibration_set import choose_calibration_set

    settings = chosen(Calibration, arguments)
    people = choose_calibration_set(
        arguments.annotations, arguments.evaluation_annotations, settings.people, settings.seed
    )
    write_json(arguments.out, people)


if __name__ == "__main__":
    main()
