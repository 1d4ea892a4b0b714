"""Ask a device over ssh what it is: its cores, their features, its memory."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the device")
    parser.add_argument(
        "--device", metavar="JSON", required=True, help="the settings of the device, as in config.yaml, as JSON"
    )
    parser.add_argument("--out", type=Path, required=True, help="what it says, to write (JSON)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.devices.ssh import Board
    from posequant.workflow.settings.base import checked_json
    from posequant.workflow.settings.devices import Device

    facts = Board(arguments.name, checked_json(Device, arguments.device, option="--device")).facts()
    # What changes from hour to hour would make anew what is decided by this.
    write_json(arguments.out, {key: facts[key] for key in ("cpu", "architecture", "features")})


if __name__ == "__main__":
    main()
