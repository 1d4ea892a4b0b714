"""Describe what a network expects of a crop and how its output is decoded: model.json."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_keypoints_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the model in the study")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", help="mmpose config: a path, or the name of a config that mmpose ships")
    source.add_argument("--onnx", type=Path, help="a network of your own; needs --onnx-settings")
    source.add_argument(
        "--ncnn-settings",
        metavar="JSON",
        help="for a network of your own in ncnn's files: an object with the same keys as --onnx-settings",
    )
    parser.add_argument(
        "--onnx-settings",
        metavar="JSON",
        help="for --onnx: an object with those keys that docs/configuration.md lists for a model from ONNX, from "
        "input_size to codec",
    )
    add_keypoints_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="model.json to write")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.export.describe import describe_mmpose, describe_ncnn, describe_onnx
    from posequant.workflow.keypoint_sets import find_keypoints
    from posequant.workflow.settings.base import checked_json
    from posequant.workflow.settings.export import CropAndCodec

    keypoints = find_keypoints(arguments.keypoints)
    if arguments.config:
        spec = describe_mmpose(arguments.name, arguments.config, keypoints)
    elif arguments.ncnn_settings:
        settings = checked_json(CropAndCodec, arguments.ncnn_settings, option="--ncnn-settings")
        spec = describe_ncnn(arguments.name, settings, keypoints)
    else:
        settings = checked_json(CropAndCodec, arguments.onnx_settings or "", option="--onnx-settings")
        spec = describe_onnx(arguments.name, arguments.onnx, settings, keypoints)
    spec.save(arguments.out)


if __name__ == "__main__":
    main()
