"""Convert an ONNX network to ncnn by pnnx, and check its output against ONNX Runtime on real crops."""

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
    parser.add_argument("--weights", choices=["fp32", "fp16"], default="fp32", help="type of the weights in the .bin")
    parser.add_argument("--out-param", type=Path, required=True, help=".param to write")
    parser.add_argument("--out-bin", type=Path, required=True, help=".bin to write")
    parser.add_argument("--out-record", type=Path, required=True, help="JSON to write: layers, difference, sha256")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.base.model_spec import ModelSpec
    from posequant.base.verify import as_made
    from posequant.data.crop_files import load_crops
    from posequant.export.convert import convert_to_ncnn

    if arguments.record:
        as_made([arguments.onnx, arguments.record])

    record = convert_to_ncnn(
        arguments.onnx,
        ModelSpec.load(arguments.model),
        load_crops(arguments.crops),
        arguments.weights,
        out=(arguments.out_param, arguments.out_bin),
    )
    write_json(arguments.out_record, record)


if __name__ == "__main__":
    main()
