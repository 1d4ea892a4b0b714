"""Put the shards of an evaluation set's predictions together, and score them with COCO's keypoint metrics."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shards", type=Path, nargs="+", required=True, metavar="FILE", help="what predict.py wrote, every shard, .npz"
    )
    parser.add_argument(
        "--annotations", type=Path, required=True, help="the COCO keypoint annotations that were predicted for"
    )
    parser.add_argument(
        "--detections", type=Path, nargs="?", help="the COCO detection results whose boxes were taken, if so"
    )
    parser.add_argument("--out", type=Path, required=True, help="statistics to write (JSON)")
    parser.add_argument("--out-predictions", type=Path, required=True, help="everybody's predictions to write, .npz")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.evaluate.keypoint_metrics import evaluate_predictions
    from posequant.evaluate.predictions import merge_predictions

    merge_predictions(arguments.shards, arguments.annotations, arguments.detections).save(arguments.out_predictions)
    metrics, summary = evaluate_predictions(arguments.out_predictions, arguments.annotations)
    print(summary, end="")
    write_json(arguments.out, metrics)


if __name__ == "__main__":
    main()
