"""Convert an ONNX network to OpenVINO in fp32, and check its output against ONNX Runtime on real crops."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_record_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, help="the network, simplified")
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    add_record_option(parser)
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops; the first 8 are compared")
    parser.add_argument("--out", type=Path, required=True, help=".xml to write; the .bin is written beside it")
    parser.add_argument("--out-record", type=Path, required=True, help="JSON to write: difference, versions, sha256")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.base.model_spec import ModelSpec
    from posequant.base.verify import as_made
    from posequant.data.crop_files import load_crops
    from posequant.export.convert import convert_to_openvino

    if arguments.record:
        as_made([arguments.onnx, arguments.record])

    spec, crops = ModelSpec.load(arguments.model), load_crops(arguments.crops)
    write_json(arguments.out_record, convert_to_openvino(arguments.onnx, spec, crops, arguments.out))


if __name__ == "__main__":
    main()
