"""Quantize an ONNX network to INT8 for ONNX Runtime, calibrated on crops."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_record_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, help="the network in fp32, simplified")
    add_record_option(parser)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops to calibrate on")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
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
    from posequant.quantize.onnxruntime import quantize_onnxruntime

    if arguments.record:
        as_made([arguments.onnx, arguments.record])

    spec, crops = ModelSpec.load(arguments.model), load_crops(arguments.crops, limit=None)
    record = quantize_onnxruntime(arguments.onnx, spec, crops, arguments.out)
    write_json(arguments.out_record, record)
    print(f"calibrated on {len(crops)} crops; difference to fp32 on the first of them: {record['difference']}")


if __name__ == "__main__":
    main()
