"""Predictions, decoding, scores, OKS and the bootstrap."""
