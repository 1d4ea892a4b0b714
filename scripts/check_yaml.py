"""Check configuration files: that each is YAML, and has each key once. Says in which line not."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="configuration file, YAML or JSON")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.workflow.yaml_files import check_yaml

    for path in arguments.files:
        check_yaml(path)


if __name__ == "__main__":
    main()
