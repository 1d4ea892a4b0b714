"""Recipes: the steps by which a network is prepared and quantized to INT8."""
