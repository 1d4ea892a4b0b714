"""Choose the training people to distill on; none of images of people who decide, tell or are evaluated on."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_choice_options
from posequant.workflow.settings.base import chosen
from posequant.workflow.settings.data import Calibration


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_choice_options(parser)
    parser.add_argument("--calibration", type=Path, required=True, help="what calibration_set.py wrote, .json")
    parser.add_argument("--people", type=int, required=True, help="how many to choose, fewer if there are no more")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choice (default: %(default)s)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.recipe.distillation_set import choose_distillation_set
    from posequant.workflow.keypoint_sets import find_keypoints

    settings = chosen(Calibration, arguments)
    people = choose_distillation_set(
        arguments.annotations,
        arguments.evaluation_annotations,
        arguments.calibration,
        settings.people,
        seed=settings.seed,
        keypoints=find_keypoints(arguments.keypoints),
    )
    write_json(arguments.out, people)


if __name__ == "__main__":
    main()
