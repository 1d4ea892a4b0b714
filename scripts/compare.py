"""Compare two results, metrics or predictions: what was lost from A to B, and whether that is tolerated.

The exit status is 0 where everything is within the tolerance, 3 where something is not, 1 after an error, such as two
files that cannot be compared, and 2 where the command line is wrong.
"""

import argparse
import sys
from pathlib import Path

from posequant.base.command import command
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.certify import Sampling
from posequant.workflow.settings.compare import Gate

NOT_WITHIN = 3
"""Exit status where something is not within the tolerance."""


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "first", metavar="A", type=Path, help="a study's result.json, a metrics.json or predictions (.npz)"
    )
    parser.add_argument("second", metavar="B", type=Path, help="the same of another version or row")
    parser.add_argument(
        "--annotations", type=Path, help="of predictions: the COCO keypoint annotations that they were made for"
    )
    add_options(parser, Gate)
    add_options(parser, Sampling)
    parser.add_argument("--out", type=Path, help="page to write (Markdown, and HTML beside it); it is printed, too")
    parser.add_argument("--out-json", type=Path, help="the same as data to write (JSON)")
    parser.add_argument("--out-junit", type=Path, help="the same as tests to write (JUnit XML)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole, write_json
    from posequant.base.html import write_page
    from posequant.report.compare import compare
    from posequant.report.compare_page import render
    from posequant.report.junit import junit

    differences = compare(
        arguments.first,
        arguments.second,
        chosen(Gate, arguments),
        arguments.annotations,
        chosen(Sampling, arguments),
    )
    page = render(differences)
    print(page, end="")
    if arguments.out:
        write_page(arguments.out, page)
    if arguments.out_json:
        write_json(arguments.out_json, differences.content)
    if arguments.out_junit:
        with whole(arguments.out_junit) as draft:
            draft.write_bytes(junit(differences))
    if not differences.passed:
        sys.exit(NOT_WITHIN)


if __name__ == "__main__":
    main()
