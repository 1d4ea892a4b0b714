"""Certify an INT8 network on emulated ARM cores: what it finds there beside x86, and where they differ."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.certify import Sampling


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="predictions of the network on x86, .npz")
    parser.add_argument("--reference", type=Path, required=True, help="predictions of the FP32 network there, .npz")
    parser.add_argument(
        "--emulated", type=Path, nargs="+", required=True, metavar="FILE", help="predictions on each core, .npz"
    )
    parser.add_argument(
        "--comparisons", type=Path, nargs="+", required=True, metavar="FILE", help="comparison of each with x86 (JSON)"
    )
    parser.add_argument(
        "--annotations", type=Path, required=True, help="the COCO keypoint annotations that were predicted for"
    )
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
    from posequant.devices.arm_certificate import certify_arm
    from posequant.devices.arm_page import render

    certificate = certify_arm(
        predictions=arguments.predictions,
        reference=arguments.reference,
        emulated=arguments.emulated,
        comparisons=arguments.comparisons,
        annotations=arguments.annotations,
        sampling=chosen(Sampling, arguments),
    )
    write_page(arguments.out_page, render(certificate))
    write_json(arguments.out, certificate)


if __name__ == "__main__":
    main()
