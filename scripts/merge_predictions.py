"""Put the shards of an evaluation set's predictions together; every person must be there exactly once."""

import argparse
from pathlib import Path

from posequant.base.errors import reports_input_errors


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shards", type=Path, nargs="+", required=True, metavar="FILE", help="what predict.py wrote, every shard, .npz"
    )
    parser.add_argument(
        "--annotations", type=Path, required=True, help="the COCO keypoint annotations that were predicted for"
    )
    parser.add_argument("--detections", type=Path, help="the COCO detection results whose boxes were taken, if so")
    parser.add_argument("--out", type=Path, required=True, help="predictions to write, .npz")
    return parser.parse_args()


@reports_input_errors
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.evaluate.predictions import merge_predictions

    merge_predictions(arguments.shards, arguments.annotations, arguments.detections).save(arguments.out)


if __name__ == "__main__":
    main()
