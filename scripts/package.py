"""Pack a network with all that an app's developer needs to run it, and to see that it runs right."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_artifact_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    add_artifact_option(parser)
    parser.add_argument("--metrics", type=Path, required=True, help="what the network scores, metrics.json")
    parser.add_argument(
        "--certificate",
        type=Path,
        nargs="*",
        metavar="FILE",
        help="its certificate, certificate.json and certificate.md, where it has one",
    )
    parser.add_argument("--table", type=Path, nargs="?", help="ncnn's calibration table, where there is one")
    parser.add_argument("--license", type=Path, required=True, help="file with the licence of PoseQuant")
    parser.add_argument("--network-license", default="", help="licence of the network, where it is known")
    parser.add_argument("--out", type=Path, required=True, help="package to write (.zip)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.errors import InputError
    from posequant.ship.package import Row, write_package

    certificate = tuple(arguments.certificate or ())
    if len(certificate) not in (0, 2):
        raise InputError("--certificate: give certificate.json and certificate.md, or neither.")
    write_package(
        Row(
            model=arguments.model,
            artifacts=arguments.artifact,
            metrics=arguments.metrics,
            certificate=certificate or None,
            table=arguments.table,
        ),
        arguments.out,
        license_file=arguments.license,
        network_license=arguments.network_license,
    )


if __name__ == "__main__":
    main()
