"""Describe what a network expects of a crop and how its output is decoded: model.json."""

import argparse
from pathlib import Path

from posequant.base.errors import InputError, reports_input_errors


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the model in the study")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", help="mmpose config: a path, or the name of a config that mmpose ships")
    source.add_argument("--onnx", type=Path, help="a network of your own; needs --onnx-settings")
    parser.add_argument(
        "--onnx-settings",
        metavar="JSON",
        help="for --onnx: an object with input_size, mean, std, codec and, if they differ from mmpose's defaults, "
        "to_rgb, padding, use_udp, flip_mode, shift_heatmap",
    )
    parser.add_argument("--out", type=Path, required=True, help="model.json to write")
    return parser.parse_args()


@reports_input_errors
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    import json

    from posequant.export.describe import describe_mmpose, describe_onnx

    if arguments.config:
        spec = describe_mmpose(arguments.name, arguments.config)
    else:
        try:
            settings = json.loads(arguments.onnx_settings or "")
        except json.JSONDecodeError as error:
            raise InputError(f"--onnx-settings: not valid JSON ({error})") from error
        spec = describe_onnx(arguments.name, arguments.onnx, settings)
    spec.save(arguments.out)


if __name__ == "__main__":
    main()
