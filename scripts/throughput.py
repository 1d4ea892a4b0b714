"""Measure people per second of the prediction of an evaluation set, in turn with its bare network on ready crops."""

import argparse
from dataclasses import asdict
from pathlib import Path

from posequant.base.command import command
from posequant.base.files import write_json
from posequant.base.options import add_artifact_option, add_people_options
from posequant.workflow.settings.precisions import add_runtime_options


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_people_options(parser)
    parser.add_argument("--variant", required=True, help="name of the row that is measured")
    add_runtime_options(parser)
    add_artifact_option(parser)
    parser.add_argument(
        "--crops",
        type=Path,
        help="what evaluation_crops.py wrote of the first shard; without it, images are read and cropped",
    )
    parser.add_argument(
        "--shards",
        type=int,
        default=1,
        help="how many shards the people are cut into; those of the first are predicted (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=20, help="rounds to time (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=60, help="time after which no further round starts (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="record to write (JSON)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()

    from posequant.base.model_spec import ModelSpec
    from posequant.base.processor import this_processor
    from posequant.base.verify import as_made
    from posequant.benchmark.throughput import measure_throughput
    from posequant.data.crops import Cropper, crops_of_images
    from posequant.data.dataset import evaluation_instances, shard_of
    from posequant.data.evaluation_crops import open_crops
    from posequant.networks.opening import device_record, open_network

    spec = ModelSpec.load(arguments.model)
    everyone = evaluation_instances(arguments.annotations, arguments.detections, spec.keypoints)
    instances = shard_of(everyone, 1, arguments.shards)
    crops = open_crops(arguments.crops, spec, instances) if arguments.crops else None
    network = open_network(
        arguments.backend,
        arguments.precision,
        list(as_made(arguments.artifact)),
        spec,
        arguments.threads,
        device=arguments.vulkan_device,
    )
    throughput = measure_throughput(
        network,
        spec,
        instances,
        crops or crops_of_images(Cropper(spec), instances, arguments.images),
        threads=arguments.threads,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
    )
    record = {"model": spec.name, "variant": arguments.variant, "cpu": this_processor().name, **asdict(throughput)}
    if device := device_record(network):
        record["device"] = device
    write_json(arguments.out, record)
    print(", ".join(f"{name} {value}" for name, value in record.items()))


if __name__ == "__main__":
    main()
