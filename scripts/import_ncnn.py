"""Take in an ncnn network from elsewhere: name its input and outputs, try it out, and tabulate its layers."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--param", type=Path, required=True, help="your network's .param")
    parser.add_argument("--bin", type=Path, required=True, help="its .bin, with weights in float32 or float16")
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--input", metavar="BLOB", help="blob that takes the crop (default: the file's only input)")
    parser.add_argument(
        "--decoded", nargs="+", metavar="BLOB", help="blobs that the codec decodes (default: those that nothing reads)"
    )
    parser.add_argument(
        "--out-fp32",
        type=Path,
        required=True,
        metavar="PARAM",
        help=".param to write with weights in float32; the .bin and the record (.json) are written beside it",
    )
    parser.add_argument(
        "--out-fp16", type=Path, required=True, metavar="PARAM", help="the same to write with weights in float16"
    )
    parser.add_argument("--out-table", type=Path, required=True, help="layers to write (CSV)")
    parser.add_argument("--out-page", type=Path, required=True, help="the same to write as Markdown")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.base.model_spec import ModelSpec
    from posequant.export.audit import write_operators
    from posequant.export.import_ncnn import Source, import_ncnn, layers_table

    params = {"fp32": arguments.out_fp32, "fp16": arguments.out_fp16}
    records = import_ncnn(
        Source(arguments.param, arguments.bin, arguments.input, arguments.decoded),
        ModelSpec.load(arguments.model),
        **{weights: (param, param.with_suffix(".bin")) for weights, param in params.items()},
    )
    write_operators(layers_table(records["fp32"]["layers"]), arguments.out_table, arguments.out_page)
    for weights, param in params.items():
        write_json(param.with_suffix(".json"), records[weights])


if __name__ == "__main__":
    main()
