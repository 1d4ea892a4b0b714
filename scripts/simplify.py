"""Simplify an ONNX network by onnxsim, and check that its output on real crops is unchanged."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_record_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, help="ONNX file to simplify")
    add_record_option(parser)
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops; the first 8 are compared")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--out-record", type=Path, required=True, help="JSON to write: node counts, difference, sha256")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.base.verify import as_made
    from posequant.data.crop_files import load_crops
    from posequant.export.simplify import simplify_verified

    if arguments.record:
        as_made([arguments.onnx, arguments.record])

    write_json(arguments.out_record, simplify_verified(arguments.onnx, load_crops(arguments.crops), arguments.out))


if __name__ == "__main__":
    main()
