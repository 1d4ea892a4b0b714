"""An ncnn network as a differentiable PyTorch network, in float and in INT8."""
