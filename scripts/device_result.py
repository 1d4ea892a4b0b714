"""Score what a device gave back, and say which network to ship for it."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.errors import InputError
from posequant.base.options import add_rows_option
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.certify import Sampling
from posequant.workflow.settings.report import Tolerance


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the device")
    parser.add_argument("--core", help="the core of ARM that was emulated in place of a device")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument(
        "--model",
        dest="models",
        action="append",
        nargs=4,
        required=True,
        metavar=("NAME", "MODEL", "PEOPLE", "RESULT"),
        help="a model, once for each: its name, its description (model.json), what device_people.py wrote, and what "
        "the device's runner gave back (.zip)",
    )
    add_rows_option(parser, "its model, its name, its precision (fp32, fp16, bf16, int8), its .param and .bin")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO keypoint annotations of the people")
    parser.add_argument(
        "--detections",
        type=Path,
        nargs="?",
        help="COCO detection results; their boxes were taken in place of the annotated ones",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads that work (default: %(default)s)")
    add_options(parser, Sampling)
    add_options(parser, Tolerance)
    parser.add_argument("--out", type=Path, required=True, help="what was found, to write (JSON)")
    parser.add_argument("--out-page", type=Path, required=True, help="the same as a page to write (Markdown, and HTML)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.base.html import write_page
    from posequant.devices.exchange import Way
    from posequant.devices.page import render
    from posequant.devices.score import Ground, Measured, device_result

    ways: dict[str, dict[str, Way]] = {}
    for words in arguments.rows:
        if len(words) < 5:
            raise InputError(f"--row {' '.join(words)}: give a model, a name, a precision, a .param and a .bin")
        model, name, precision, *files = words
        ways.setdefault(model, {})[name] = Way.made(precision, [Path(file) for file in files])
    models = [
        Measured(Path(model), Path(people), Path(result), ways[name])
        for name, model, people, result in arguments.models
    ]
    ground = Ground(
        arguments.annotations, arguments.detections, chosen(Sampling, arguments), chosen(Tolerance, arguments)
    )
    result = {"emulated": arguments.core, **device_result(arguments.name, models, ground, arguments.threads)}
    write_page(arguments.out_page, render(result, arguments.study))
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
