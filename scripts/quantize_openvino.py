"""Quantize an OpenVINO network to INT8 by NNCF, calibrated on crops."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_record_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--xml", type=Path, required=True, help="the network in fp32")
    parser.add_argument("--bin", type=Path, required=True, help="its weights")
    add_record_option(parser)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops to calibrate on")
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
    from posequant.quantize.openvino import quantize_openvino

    if arguments.record:
        as_made([arguments.xml, arguments.bin, arguments.record])

    spec, crops = ModelSpec.load(arguments.model), load_crops(arguments.crops, limit=None)
    record = quantize_openvino(arguments.xml, arguments.bin, spec, crops, arguments.out)
    write_json(arguments.out_record, record)
    print(f"calibrated on {len(crops)} crops; difference to fp32 on the first of them: {record['difference']}")


if __name__ == "__main__":
    main()
