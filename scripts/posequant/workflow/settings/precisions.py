"""What there is to choose of each runtime."""

PRECISIONS = {
    "pytorch": ("fp32",),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "int8"),
    "ncnn": ("fp32", "fp16", "bf16", "int8"),
}
"""The arithmetic that each runtime offers."""

TITLES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn"}
"""What each runtime calls itself."""
