"""What there is to choose of each runtime."""

from argparse import ArgumentParser

PRECISIONS = {
    "pytorch": ("fp32",),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "int8"),
    "ncnn": ("fp32", "fp16", "bf16", "int8"),
}
"""The arithmetic that each runtime offers."""

TITLES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn"}
"""What each runtime calls itself."""


def add_runtime_options(parser: ArgumentParser) -> None:
    """Add `--backend` and `--precision`: how a script's network is run."""
    parser.add_argument("--backend", choices=PRECISIONS, required=True, help="runtime that executes the network")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8"),
        required=True,
        help="arithmetic; the backend must offer it",
    )
