"""Write the mmdeploy deploy config by which a network is exported for ncnn."""

import argparse
from pathlib import Path

from posequant.base.errors import reports_input_errors


@reports_input_errors
def main() -> None:
    """Read the arguments and write the deploy config."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of the network")
    parser.add_argument("--opset", type=int, default=11, help="ONNX opset (default: %(default)s)")
    parser.add_argument("--precision", choices=["FP32", "FP16", "INT8"], default="INT8", help="of the ncnn backend")
    parser.add_argument(
        "--use-vulkan", action=argparse.BooleanOptionalAction, default=False, help="of the ncnn backend (default: no)"
    )
    parser.add_argument("--out", type=Path, required=True, help="deploy config (.py) to write")
    arguments = parser.parse_args()

    from posequant.base.model_spec import ModelSpec
    from posequant.export.export import write_deploy_config

    spec = ModelSpec.load(arguments.model)
    write_deploy_config(spec, arguments.opset, arguments.precision, arguments.use_vulkan, arguments.out)


if __name__ == "__main__":
    main()
