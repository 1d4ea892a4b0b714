"""Predict the keypoints of every person of an evaluation set, or of a shard of it, with one backend."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_artifact_option, add_people_options
from posequant.workflow.settings.precisions import add_runtime_options


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_people_options(parser)
    parser.add_argument("--variant", required=True, help="name of the row that the predictions belong to")
    add_runtime_options(parser)
    add_artifact_option(parser)
    parser.add_argument(
        "--crops",
        type=Path,
        help="what evaluation_crops.py wrote for this shard; without it, images are read and cropped",
    )
    parser.add_argument("--flip-test", action="store_true", help="average with the prediction for the mirrored crop")
    parser.add_argument("--shard", type=int, default=1, help="which shard to predict (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=1, help="number of shards (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="predictions to write, .npz")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.evaluate.predict import make_predictions

    predictions = make_predictions(
        model=arguments.model,
        variant=arguments.variant,
        backend=arguments.backend,
        precision=arguments.precision,
        artifacts=arguments.artifact,
        images=arguments.images,
        annotations=arguments.annotations,
        detections=arguments.detections,
        flip_test=arguments.flip_test,
        threads=arguments.threads,
        crops=arguments.crops,
        shard=arguments.shard,
        shards=arguments.shards,
        device=arguments.vulkan_device,
    )
    predictions.save(arguments.out)


if __name__ == "__main__":
    main()
