"""Score predictions with COCO's keypoint metrics."""

import argparse
from pathlib import Path

from posequant.base.errors import reports_input_errors


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="what predict.py wrote, .npz")
    parser.add_argument(
        "--annotations", type=Path, required=True, help="the COCO keypoint annotations that were predicted for"
    )
    parser.add_argument("--out", type=Path, required=True, help="statistics to write, .json")
    return parser.parse_args()


@reports_input_errors
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.evaluate.keypoint_metrics import evaluate_predictions

    metrics, summary = evaluate_predictions(arguments.predictions, arguments.annotations)
    print(summary, end="")
    write_json(arguments.out, metrics)


if __name__ == "__main__":
    main()
