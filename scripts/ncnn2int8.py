"""Quantize an ncnn model to INT8 by a calibration table, byte for byte as ncnn's own ncnn2int8 does."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--param", type=Path, required=True, help="the float model's .param")
    parser.add_argument("--bin", type=Path, required=True, help="the float model's .bin")
    parser.add_argument("--table", type=Path, required=True, help="the calibration table of ncnn2table")
    parser.add_argument("--out-param", type=Path, required=True, help="the INT8 .param to write")
    parser.add_argument("--out-bin", type=Path, required=True, help="the INT8 .bin to write")
    parser.add_argument("--out-record", type=Path, required=True, help="JSON to write: layers, versions, sha256")
    parser.add_argument(
        "--keep-float", nargs="+", default=[], metavar="LAYER", help="names of layers to leave in float (default: none)"
    )
    parser.add_argument(
        "--record",
        type=Path,
        help="what the maker of the float model recorded: its files are compared with that; layers that a recipe kept "
        "in float stay in float",
    )
    parser.add_argument("--tool", help="the official ncnn2int8 to run in place of this implementation")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import read_json, write_json
    from posequant.base.verify import as_made, hashes, versions
    from posequant.ncnn_format.model import read_param
    from posequant.ncnn_format.overflow import is_winograd_safe
    from posequant.quantize.ncnn2int8 import quantize_files

    keep_float = [*arguments.keep_float]
    if arguments.record:
        as_made([arguments.param, arguments.bin, arguments.record])
        record = read_json(arguments.record)
        # A recipe makes the table, too.
        if arguments.table.name in record["sha256"]:
            as_made([arguments.table, arguments.record])
        keep_float += record.get("keep_float", [])
    names = quantize_files(
        arguments.param,
        arguments.bin,
        arguments.table,
        arguments.out_param,
        arguments.out_bin,
        keep_float=keep_float,
        tool=arguments.tool,
    )
    print(f"{len(names)} layers are INT8; {', '.join(keep_float) or 'none that could be'} kept in float")
    made = {
        "layers": names,
        "keep_float": keep_float,
        "tool": arguments.tool,
        "made_from": hashes(arguments.param, arguments.bin, arguments.table),
        "sha256": hashes(arguments.out_param, arguments.out_bin),
        "versions": versions("ncnn", "numpy"),
    }
    write_json(arguments.out_record, made)
    if marked := [layer.name for layer in read_param(arguments.out_param) if is_winograd_safe(layer)]:
        print(f"kept from Winograd's algorithm, in which they could overflow: {', '.join(marked)}")


if __name__ == "__main__":
    main()
