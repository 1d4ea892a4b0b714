"""Where the error of an ncnn INT8 network comes from: layer by layer, and step by step from float to INT8."""
