"""Run the networks of models on a device, over ssh: outputs and times, brought back piece by piece."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_jobs_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the device")
    parser.add_argument(
        "--device", metavar="JSON", required=True, help="the settings of the device, as in config.yaml, as JSON"
    )
    add_jobs_option(parser)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, with the result of each model as MODEL.zip"
    )
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.devices.ssh import Board, Job, measure_jobs
    from posequant.workflow.settings.base import checked_json
    from posequant.workflow.settings.devices import Device

    board = Board(arguments.name, checked_json(Device, arguments.device, option="--device"))
    jobs = {model: Job(Path(networks), Path(people)) for model, networks, people in arguments.jobs}
    measure_jobs(board, jobs, arguments.out)


if __name__ == "__main__":
    main()
