"""Crop the people of an evaluation set for `devices/runner.py`, which runs networks on a device."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO keypoint annotations of the people")
    parser.add_argument(
        "--detections",
        type=Path,
        nargs="?",
        help="COCO detection results; their boxes are taken in place of the annotated ones",
    )
    parser.add_argument("--out", type=Path, required=True, help="crops to write, .npz")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.devices.job import write_crops

    people = write_crops(arguments.out, arguments.model, arguments.annotations, arguments.images, arguments.detections)
    print(f"{people} people")


if __name__ == "__main__":
    main()
