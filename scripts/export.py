"""Export a network from mmpose to ONNX by mmdeploy, compare it with PyTorch, and audit its operators."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.workflow.settings.base import add_options, chosen
from posequant.workflow.settings.export import Export


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="mmpose config: a path, or the name of one that mmpose ships")
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights of the network")
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops; the first 8 are compared")
    add_options(parser, Export)
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--out-deploy-config", type=Path, required=True, help="what mmdeploy receives, to write (.py)")
    parser.add_argument("--out-record", type=Path, required=True, help="what was found, to write (JSON)")
    parser.add_argument("--out-table", type=Path, required=True, help="operators to write (CSV)")
    parser.add_argument("--out-page", type=Path, required=True, help="the same to write as Markdown")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.base.model_spec import ModelSpec
    from posequant.data.crop_files import load_crops
    from posequant.export.audit import audit, traced_operators, write_operators
    from posequant.export.export import export_verified, write_deploy_config

    spec, deploy_config = ModelSpec.load(arguments.model), arguments.out_deploy_config
    write_deploy_config(spec, chosen(Export, arguments), deploy_config)
    with traced_operators() as traced:
        record = export_verified(
            arguments.config,
            arguments.checkpoint,
            deploy_config,
            spec=spec,
            crops=load_crops(arguments.crops),
            target=arguments.out,
        )
    write_operators(audit(arguments.out, traced), arguments.out_table, arguments.out_page)
    write_json(arguments.out_record, record)


if __name__ == "__main__":
    main()
