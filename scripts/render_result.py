"""Render the result of a study as a page of Markdown with its pictures."""

import argparse
import os
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, required=True, help="result of the study (JSON)")
    parser.add_argument("--report", type=Path, required=True, help="the HTML report, which the page links to")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--out-figure", type=Path, required=True, help="picture to write (SVG); the page shows it")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.report.figure import draw
    from posequant.report.page import Picture, render
    from posequant.report.result import Result

    def link(path: Path) -> str:
        return os.path.relpath(path, arguments.out.parent)

    result = Result.read(arguments.result)
    picture = Picture(link(arguments.out_figure), "AP, speed and size", "Speed: against ONNX Runtime FP32.")
    page = render(result, link(arguments.result), link(arguments.report), [picture])
    with whole(arguments.out_figure) as figure, whole(arguments.out) as draft:
        draw(result.networks, figure)
        draft.write_text(page)


if __name__ == "__main__":
    main()
