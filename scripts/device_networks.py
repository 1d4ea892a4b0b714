"""Pack the networks in ncnn of a model for `devices/runner.py`, which runs them on a device."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.errors import InputError


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument(
        "--row",
        dest="rows",
        action="append",
        nargs="+",
        required=True,
        metavar="WORD",
        help="a network, once for each: its name, its precision (fp32, fp16, bf16, int8), its .param and .bin, and, if "
        "there is one, the record of their maker",
    )
    parser.add_argument("--out", type=Path, required=True, help="archive to write, .zip")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.model_spec import ModelSpec
    from posequant.base.verify import as_made
    from posequant.devices.exchange import Way
    from posequant.devices.job import write_package

    ways = {}
    for words in arguments.rows:
        if len(words) < 4:
            raise InputError(f"--row {' '.join(words)}: give a name, a precision, a .param and a .bin")
        name, precision, *files = words
        param, weights = as_made([Path(file) for file in files])
        ways[name] = Way((param, weights), precision)
    write_package(arguments.out, ModelSpec.load(arguments.model), ways)


if __name__ == "__main__":
    main()
