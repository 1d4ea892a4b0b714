"""Pack the networks in ncnn of a model for `devices/runner.py`, which runs them on a device."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.errors import InputError
from posequant.base.options import add_rows_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    add_rows_option(parser, "its name, its precision (fp32, fp16, bf16, int8), its .param and .bin")
    parser.add_argument("--out", type=Path, required=True, help="archive to write, .zip")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.model_spec import ModelSpec
    from posequant.devices.exchange import Way
    from posequant.devices.job import write_package

    ways = {}
    for words in arguments.rows:
        if len(words) < 4:
            raise InputError(f"--row {' '.join(words)}: give a name, a precision, a .param and a .bin")
        name, precision, *files = words
        ways[name] = Way.made(precision, [Path(file) for file in files])
    write_package(arguments.out, ModelSpec.load(arguments.model), ways)


if __name__ == "__main__":
    main()
