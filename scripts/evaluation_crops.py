"""Crop the people of an evaluation set, or of a shard of it, once for all networks that are predicted with."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_people_options
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.data import EvaluationCrops


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_people_options(parser)
    add_options(parser, EvaluationCrops)
    parser.add_argument("--shard", type=int, default=1, help="which shard to crop (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=1, help="number of shards (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write: crops.npy and crops.json")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.data.evaluation_crops import keep_crops

    with whole(arguments.out) as draft:
        record = keep_crops(
            model=arguments.model,
            images=arguments.images,
            annotations=arguments.annotations,
            detections=arguments.detections,
            folder=draft,
            settings=chosen(EvaluationCrops, arguments),
            threads=arguments.threads,
            shard=arguments.shard,
            shards=arguments.shards,
        )
    done = "kept" if record["kept"] else "not kept: every prediction cuts them anew"
    size, limit = record["gigabytes_of_all_shards"], record["limit_gb"]
    print(f"crops of all shards take {size:.2f} GB; the limit is {limit:g} GB: {done}")


if __name__ == "__main__":
    main()
