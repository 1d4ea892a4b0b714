"""What an INT8 network costs beside the FP32 one, how sure that is, and what its arithmetic can do."""
