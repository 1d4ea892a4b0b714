"""Crop the chosen people by the model's own test pipeline: the exact tensors that the network sees."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--calibration", type=Path, required=True, help="what calibration_set.py wrote, .json")
    parser.add_argument("--images", type=Path, required=True, help="folder of the training images")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write: 000000.npy and so on, and list.txt with their names"
    )
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.data.calibration_set import make_crops

    with whole(arguments.out) as draft:
        make_crops(arguments.model, arguments.calibration, arguments.images, draft)


if __name__ == "__main__":
    main()
