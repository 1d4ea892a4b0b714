"""Render the result of a study as one HTML file, with its pages and pictures in it."""

import argparse
import os
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, required=True, help="result of the study (JSON); links in it lead on")
    parser.add_argument(
        "--pictures", type=Path, nargs="*", default=[], help="lists of the pictures of rows, pictures.json"
    )
    parser.add_argument("--devices", type=Path, nargs="*", default=[], help="pages of devices, to be shown as sections")
    parser.add_argument("--out", type=Path, required=True, help="report to write (HTML)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.report.html import pages_of, render_report
    from posequant.report.result import Result

    result = Result.read(arguments.result)
    report = render_report(
        result,
        os.path.relpath(arguments.result, arguments.out.parent),
        {network.name: pages_of(network, arguments.result.parent) for network in result.networks},
        arguments.pictures,
        arguments.devices,
    )
    with whole(arguments.out) as draft:
        draft.write_text(report)


if __name__ == "__main__":
    main()
