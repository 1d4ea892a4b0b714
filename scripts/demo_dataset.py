"""Draw a demo's dataset: synthetic people or hands in COCO keypoint format, with a train and a val split."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.demo import Synthetic


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    add_options(parser, Synthetic)
    parser.add_argument("--processes", type=int, default=1, help="processes that draw (default: 1)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.demo.scenes import KINDS, write_dataset

    settings = chosen(Synthetic, arguments)
    counts = {"train": settings.train_images, "val": settings.val_images}
    with whole(arguments.out) as draft:
        write_dataset(draft, counts, settings.seed, arguments.processes, KINDS[settings.kind])


if __name__ == "__main__":
    main()
