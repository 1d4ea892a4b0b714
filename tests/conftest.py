"""What holds for all tests."""

import posequant  # noqa: F401  # before ONNX Runtime is imported, which then reports nothing over the network
