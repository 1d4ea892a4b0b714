"""Take from their images what crops of the people to distill on can see, shifted, scaled and turned."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--people", type=Path, required=True, help="what distillation_set.py wrote, .json")
    parser.add_argument("--images", type=Path, required=True, help="folder of the training images")
    parser.add_argument("--threads", type=int, default=1, help="threads that work (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write: crops.npy, frames.npz and crops.json")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.data.wide_crops import make_wide_crops

    with whole(arguments.out) as draft:
        make_wide_crops(arguments.model, arguments.people, arguments.images, draft, arguments.threads)


if __name__ == "__main__":
    main()
