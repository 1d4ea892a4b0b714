"""From a checkpoint to ONNX, ncnn and OpenVINO, and the audit of operators."""
