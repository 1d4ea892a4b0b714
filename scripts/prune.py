"""Remove what a finished study needs no more; whether it is finished, the workflow knows."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", nargs="+", default=[], metavar="PATTERN", help="folders of kept crops, by pattern")
    parser.add_argument("--remove", nargs="+", default=[], metavar="PATTERN", help="files to remove, by pattern")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.workflow.estimate import size
    from posequant.workflow.prune import prune_crops, remove

    of_all = 0
    for pattern in arguments.crops + arguments.remove:
        found = sorted(Path().glob(pattern))
        count, total = remove(prune_crops(found) if pattern in arguments.crops else found)
        if count:
            print(f"removed {size(total)}, {count} file{'s' if count > 1 else ''}: {pattern}")
        of_all += total
    print(f"{size(of_all)} freed" if of_all else "nothing to remove")


if __name__ == "__main__":
    main()
