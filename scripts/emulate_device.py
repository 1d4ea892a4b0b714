"""Run the networks of models on an emulated core of ARM, as on a device: outputs, and no times."""

import argparse
from pathlib import Path
from typing import get_args

from posequant.base.command import command
from posequant.base.options import add_jobs_option
from posequant.workflow.settings.devices import Core


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", choices=get_args(Core), required=True, help="core to emulate")
    add_jobs_option(parser)
    parser.add_argument(
        "--emulation", type=Path, default=Path(__file__).parents[1] / ".arm", help="what `make arm` set up"
    )
    parser.add_argument("--threads", type=int, default=1, help="how many cores of this machine work (default: 1)")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, with the result of each model as MODEL.zip"
    )
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.devices.emulated import emulate_jobs
    from posequant.devices.emulation import Emulation
    from posequant.devices.ssh import Job

    jobs = {model: Job(Path(networks), Path(people)) for model, networks, people in arguments.jobs}
    emulate_jobs(Emulation.open(arguments.emulation), arguments.core, jobs, arguments.out, arguments.threads)


if __name__ == "__main__":
    main()
