"""Certify a network in reduced precision: what it costs beside FP32, how sure that is, what its arithmetic can do."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_compared_options
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.certify import Sampling


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_compared_options(parser)
    parser.add_argument("--crops", type=Path, required=True, help="folder of the calibration crops")
    parser.add_argument("--calibration", type=Path, required=True, help="the calibration set (JSON)")
    add_options(parser, Sampling)
    parser.add_argument("--out", type=Path, required=True, help="certificate to write (JSON)")
    parser.add_argument("--out-page", type=Path, required=True, help="the same as a page to write (Markdown)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.base.html import write_page
    from posequant.certify.certify import certify
    from posequant.certify.page import render

    certificate = certify(
        predictions=arguments.predictions,
        reference=arguments.reference,
        annotations=arguments.annotations,
        model=arguments.model,
        artifacts=arguments.artifact,
        reference_artifacts=arguments.reference_artifact,
        crops=arguments.crops,
        calibration=arguments.calibration,
        sampling=chosen(Sampling, arguments),
    )
    write_page(arguments.out_page, render(certificate))
    write_json(arguments.out, certificate)


if __name__ == "__main__":
    main()
