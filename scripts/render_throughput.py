"""Put throughput measurements in one table, as Markdown and as CSV."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, nargs="+", required=True, help="what throughput.py wrote, in order")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--out-table", type=Path, required=True, help="CSV file to write")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import read_json, whole
    from posequant.base.html import write_page
    from posequant.benchmark.throughput import throughput_page, throughput_table

    table = throughput_table([read_json(path) for path in arguments.measured])
    with whole(arguments.out_table) as draft:
        table.to_csv(draft, index=False)
    page = throughput_page(table)
    write_page(arguments.out, page)
    print(page)


if __name__ == "__main__":
    main()
