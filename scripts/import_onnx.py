"""Clean up an ONNX file from elsewhere, check that its output is unchanged, and audit its operators."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, help="your ONNX file")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--out-record", type=Path, required=True, help="what was found, to write (JSON)")
    parser.add_argument("--out-table", type=Path, required=True, help="operators to write (CSV)")
    parser.add_argument("--out-page", type=Path, required=True, help="the same to write as Markdown")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.export.audit import audit, write_operators
    from posequant.export.import_onnx import import_onnx

    record = import_onnx(arguments.onnx, arguments.out)
    write_operators(audit(arguments.out), arguments.out_table, arguments.out_page)
    write_json(arguments.out_record, record)


if __name__ == "__main__":
    main()
