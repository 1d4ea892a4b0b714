"""Choose the training people to calibrate on; refuse any that are in the evaluation set."""

import argparse

from posequant.base.command import command
from posequant.base.options import add_choice_options
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.data import Calibration


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_choice_options(parser)
    add_options(parser, Calibration)
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.data.calibration_set import choose_calibration_set
    from posequant.workflow.keypoint_sets import find_keypoints

    settings = chosen(Calibration, arguments)
    people = choose_calibration_set(
        arguments.annotations,
        arguments.evaluation_annotations,
        settings.people,
        settings.seed,
        find_keypoints(arguments.keypoints),
    )
    write_json(arguments.out, people)


if __name__ == "__main__":
    main()
