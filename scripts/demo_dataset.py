"""Draw the demo's dataset: synthetic people in COCO keypoint format, with a train and a val split."""

import argparse
from pathlib import Path

from posequant.base.errors import reports_input_errors


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument("--train-images", type=int, default=400, help="images of the train split (default: 400)")
    parser.add_argument("--val-images", type=int, default=300, help="images of the val split (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="everything drawn follows from it (default: 0)")
    parser.add_argument("--processes", type=int, default=1, help="processes that draw (default: 1)")
    return parser.parse_args()


@reports_input_errors
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.demo.people import write_dataset

    counts = {"train": arguments.train_images, "val": arguments.val_images}
    with whole(arguments.out) as draft:
        write_dataset(draft, counts, arguments.seed, arguments.processes)


if __name__ == "__main__":
    main()
