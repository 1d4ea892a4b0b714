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
    parser.add_argument(
        "--out-figures",
        type=Path,
        nargs="+",
        required=True,
        metavar="SVG",
        help="pictures to write, each under its name, such as sizes.svg; a PNG beside each; the page shows them",
    )
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.errors import InputError
    from posequant.base.figures import save
    from posequant.base.files import whole
    from posequant.report.figures import NAMES, draw
    from posequant.report.page import Picture, render
    from posequant.report.result import Result

    def link(path: Path) -> str:
        return os.path.relpath(path, arguments.out.parent)

    paths = {path.stem: path for path in arguments.out_figures}
    if unknown := sorted(paths.keys() - set(NAMES)):
        raise InputError(f"--out-figures: there is no picture {unknown[0]}. There are {', '.join(NAMES)}.")
    result = Result.read(arguments.result)
    drawings = [drawing for drawing in draw(result) if drawing.name in paths]
    for drawing in drawings:
        save(drawing.figure, paths[drawing.name])
    pictures = [
        Picture(link(paths[drawing.name]), drawing.title, drawing.caption) for drawing in drawings if not drawing.empty
    ]
    with whole(arguments.out) as draft:
        draft.write_text(render(result, link(arguments.result), link(arguments.report), pictures))


if __name__ == "__main__":
    main()
