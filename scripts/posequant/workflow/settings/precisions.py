"""What there is to choose of each runtime."""

from argparse import ArgumentParser

PRECISIONS = {
    "pytorch": ("fp32",),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "int8"),
    "ncnn": ("fp32", "fp16", "bf16", "int8"),
    "ncnn-vulkan": ("fp32", "fp16", "int8"),
}
"""The arithmetic that each runtime offers."""

TITLES = {
    "pytorch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ncnn": "ncnn",
    "ncnn-vulkan": "ncnn Vulkan",
}
"""What each runtime calls itself."""

NCNN = ("ncnn", "ncnn-vulkan")
"""The runtimes that load ncnn's files: on the CPU, and on a Vulkan device."""


def add_runtime_options(parser: ArgumentParser) -> None:
    """Add `--backend` and `--precision`: how a script's network is run."""
    parser.add_argument("--backend", choices=PRECISIONS, required=True, help="runtime that executes the network")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8"),
        required=True,
        help="arithmetic; the backend must offer it",
    )
    add_device_option(parser)


def add_device_option(parser: ArgumentParser) -> None:
    """Add `--vulkan-device`: what networks of `ncnn-vulkan` run on."""
    parser.add_argument(
        "--vulkan-device",
        metavar="DEVICE",
        help="for ncnn-vulkan: the number of the device, or a part of its name (default: ncnn's choice)",
    )
