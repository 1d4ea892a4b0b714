"""Put the attribution of an ncnn INT8 network and the times of its layers on a page, in pictures and in a table."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attribution", type=Path, required=True, help="the attribution (JSON)")
    parser.add_argument("--times", type=Path, required=True, help="the times of the layers (JSON)")
    parser.add_argument("--out", type=Path, required=True, help="page to write (Markdown), beside the pictures")
    parser.add_argument("--out-table", type=Path, required=True, help="the layers as a table to write (CSV)")
    for name, what in (("steps", "the steps"), ("layers", "the layers"), ("times", "the times")):
        parser.add_argument(
            f"--out-{name}", type=Path, required=True, help=f"picture of {what} to write (SVG; a PNG beside it)"
        )
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.attribute.figure import draw
    from posequant.attribute.page import render, to_table, with_times
    from posequant.base.figures import save
    from posequant.base.files import read_json, whole
    from posequant.base.html import write_page

    attribution = with_times(read_json(arguments.attribution), read_json(arguments.times))
    paths = {path.name: path for path in (arguments.out_steps, arguments.out_layers, arguments.out_times)}
    pictures = dict(zip(paths, draw(attribution), strict=True))
    for name, drawing in pictures.items():
        save(drawing.figure, paths[name])
    write_page(arguments.out, render(attribution, pictures), paths)
    with whole(arguments.out_table) as table:
        to_table(attribution).to_csv(table, index=False)


if __name__ == "__main__":
    main()
