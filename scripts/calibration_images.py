"""Fetch the images of chosen people one by one, from the addresses in COCO's annotations."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=Path, required=True, help="chosen people, as calibration_set.py writes")
    parser.add_argument(
        "--annotations", type=Path, required=True, help="COCO annotations that give each image a coco_url"
    )
    parser.add_argument("--known", type=Path, help="folder of images that were fetched before, which are copied")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; until it is whole, FOLDER.part")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.fetch.calibration_images import fetch_calibration_images

    fetch_calibration_images(arguments.calibration, arguments.annotations, arguments.out, arguments.known)


if __name__ == "__main__":
    main()
