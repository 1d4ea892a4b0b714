"""Tabulate a network's operators from PyTorch over ONNX to ncnn; fail where ncnn lacks one."""

import argparse
from pathlib import Path

from posequant.base.errors import reports_input_errors


@reports_input_errors
def main() -> None:
    """Read the arguments and write the table twice: as CSV and as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="mmpose config of the network; left out for an ONNX file of your own")
    parser.add_argument("--checkpoint", type=Path, help="its weights; needed with --config")
    parser.add_argument("--deploy-config", type=Path, help="its mmdeploy deploy config; needed with --config")
    parser.add_argument("--onnx", type=Path, required=True, help="the network in ONNX, before it is simplified")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    parser.add_argument("--markdown", type=Path, required=True, help="Markdown to write")
    arguments = parser.parse_args()
    if arguments.config and not (arguments.checkpoint and arguments.deploy_config):
        parser.error("--config needs --checkpoint and --deploy-config")

    from posequant.base.files import whole
    from posequant.base.markdown import table
    from posequant.export.audit import audit, audit_onnx

    if arguments.config:
        operators = audit(arguments.config, arguments.checkpoint, arguments.deploy_config, arguments.onnx)
    else:
        operators = audit_onnx(arguments.onnx)
    with whole(arguments.out) as draft:
        operators.to_csv(draft, index=False)
    with whole(arguments.markdown) as draft:
        draft.write_text(table(dict(row) for _, row in operators.astype(str).iterrows()) + "\n")


if __name__ == "__main__":
    main()
