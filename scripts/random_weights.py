"""Write a checkpoint of seeded random weights for an mmpose network, to try the pipeline without a download."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_keypoints_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="mmpose config: a path, or the name of one that mmpose ships")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    add_keypoints_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.survey.random_weights import write_random_checkpoint
    from posequant.workflow.keypoint_sets import find_keypoints

    keypoints = find_keypoints(arguments.keypoints)
    parameters = write_random_checkpoint(arguments.config, arguments.seed, arguments.out, keypoints)
    print(f"{parameters / 1e6:.2f} million random parameters")


if __name__ == "__main__":
    main()
