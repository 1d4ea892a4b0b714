"""PoseQuant: what the workflow's scripts call. Quantize a pose network and know exactly what it costs."""
