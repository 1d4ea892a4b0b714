"""What there is to choose in ncnn2table."""

METHODS = ("kl", "aciq")
"""How ncnn2table clips activations: by the least KL divergence, or by the analytical ACIQ."""
