"""Show people's poses by a network in reduced precision and by FP32 over their photographs, with the heatmaps."""

import argparse
import os
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_compared_options
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.report import Pictures


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_compared_options(parser)
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    add_options(parser, Pictures)
    parser.add_argument("--out", type=Path, required=True, help="list of the pictures to write (JSON)")
    parser.add_argument("--out-folder", type=Path, required=True, help="folder of the pictures to write")
    parser.add_argument("--out-page", type=Path, required=True, help="page to write (Markdown), beside the list")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole, write_json
    from posequant.base.html import write_page
    from posequant.report.pictures import make_pictures
    from posequant.report.pictures_page import render

    with whole(arguments.out_folder) as folder:
        link = os.path.relpath(arguments.out_folder, arguments.out.parent)
        pictures = make_pictures(
            predictions=arguments.predictions,
            reference=arguments.reference,
            annotations=arguments.annotations,
            images=arguments.images,
            model=arguments.model,
            artifacts=arguments.artifact,
            reference_artifacts=arguments.reference_artifact,
            settings=chosen(Pictures, arguments),
            folder=folder,
            link=link,
        )
        files = {f"{link}/{path.name}": path for path in folder.iterdir()}
        write_page(arguments.out_page, render(pictures), files)
        write_json(arguments.out, pictures)


if __name__ == "__main__":
    main()
