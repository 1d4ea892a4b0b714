"""Write the JSON schema of config.yaml, which editors read, and the page that describes its keys."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out-schema", type=Path, required=True, help="JSON schema to write (.json)")
    parser.add_argument("--out-page", type=Path, required=True, help="the description to write (Markdown)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import whole
    from posequant.workflow.settings.reference import page, schema_text

    with whole(arguments.out_schema) as schema, whole(arguments.out_page) as markdown:
        schema.write_text(schema_text())
        markdown.write_text(page())


if __name__ == "__main__":
    main()
