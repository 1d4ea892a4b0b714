"""Choose images of an evaluation set that hold so many people: a subset, for a quick answer."""

import argparse
import json
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_keypoints_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--annotations", type=Path, required=True, help="COCO keypoint annotations of the whole evaluation set"
    )
    parser.add_argument("--people", type=int, required=True, help="how many people the images must hold, at least")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choice (default: %(default)s)")
    add_keypoints_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="annotations of the chosen images to write, .json")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.data.evaluation_people import choose_evaluation_people
    from posequant.workflow.keypoint_sets import find_keypoints

    keypoints = find_keypoints(arguments.keypoints)
    chosen = choose_evaluation_people(arguments.annotations, arguments.people, arguments.seed, keypoints)
    with whole(arguments.out) as draft:
        draft.write_text(json.dumps(chosen))


if __name__ == "__main__":
    main()
