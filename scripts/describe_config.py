"""Write the JSON schemas of config.yaml and of a study's result, and the page that describes the former's keys."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out-schema", type=Path, required=True, help="JSON schema of config.yaml to write")
    parser.add_argument("--out-page", type=Path, required=True, help="the description to write (Markdown)")
    parser.add_argument("--out-result-schema", type=Path, help="JSON schema of a study's result.json to write")
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
    if arguments.out_result_schema:
        from posequant.report.result import schema_text as result_schema_text

        with whole(arguments.out_result_schema) as schema:
            schema.write_text(result_schema_text())


if __name__ == "__main__":
    main()
