"""What a network of reduced precision costs beside FP32, how sure that is, and what its arithmetic can do."""
