"""List the Vulkan devices of this machine, and say on which of them rows of ncnn-vulkan run."""

import argparse

from posequant.base.command import command
from posequant.workflow.settings.precisions import add_device_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_device_option(parser)
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.networks.vulkan import find_device, vulkan_devices

    chosen = find_device(arguments.vulkan_device)
    for device in vulkan_devices():
        print(device)
    print(f"Rows of ncnn-vulkan run on {chosen}.")


if __name__ == "__main__":
    main()
