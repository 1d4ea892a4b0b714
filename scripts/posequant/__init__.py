"""PoseQuant: what the workflow's scripts call. Quantize a pose network and know exactly what it costs."""

import os

from posequant.version import __version__

__all__ = ["__version__"]

# ONNX Runtime would tell its makers over the network which networks it runs, without asking. It reads this when it is
# imported, which is always after this package. OpenVINO and NNCF do so by a package that is not installed.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
