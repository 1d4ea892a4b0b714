"""Export a network from mmpose to ONNX by mmdeploy, and check its output against PyTorch on real crops."""

import argparse
from pathlib import Path

from posequant.base.errors import reports_input_errors


@reports_input_errors
def main() -> None:
    """Read the arguments and write the ONNX file and its record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="mmpose config: a path, or the name of one that mmpose ships")
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights of the network")
    parser.add_argument("--deploy-config", type=Path, required=True, help="mmdeploy deploy config of the network")
    parser.add_argument("--model", type=Path, required=True, help="model.json of the network")
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops; the first 8 are compared")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--record", type=Path, required=True, help="JSON to write: difference, versions, sha256")
    arguments = parser.parse_args()

    from posequant.base.files import write_json
    from posequant.base.model_spec import ModelSpec
    from posequant.data.crop_files import load_crops
    from posequant.export.export import export_verified

    record = export_verified(
        arguments.config,
        arguments.checkpoint,
        arguments.deploy_config,
        ModelSpec.load(arguments.model),
        load_crops(arguments.crops),
        arguments.out,
    )
    write_json(arguments.record, record)


if __name__ == "__main__":
    main()
