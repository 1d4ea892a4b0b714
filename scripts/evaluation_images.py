"""Fetch the images of an evaluation set one by one, from the addresses in COCO's annotations."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--annotations", type=Path, required=True, help="COCO annotations that give each image a coco_url"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; until it is whole, FOLDER.part")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.fetch.calibration_images import fetch_evaluation_images

    fetch_evaluation_images(arguments.annotations, arguments.out)


if __name__ == "__main__":
    main()
