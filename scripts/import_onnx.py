"""Clean up an ONNX file from elsewhere for today's converters, and check that its output is unchanged."""

import argparse
from pathlib import Path

from posequant.base.errors import reports_input_errors


@reports_input_errors
def main() -> None:
    """Read the arguments and write the clean ONNX file and its record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, help="your ONNX file")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--record", type=Path, required=True, help="JSON to write: changes, difference, sha256")
    arguments = parser.parse_args()

    from posequant.base.files import write_json
    from posequant.export.import_onnx import import_onnx

    write_json(arguments.record, import_onnx(arguments.onnx, arguments.out))


if __name__ == "__main__":
    main()
