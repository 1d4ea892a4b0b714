"""One network, one set of crops: scales, and INT8."""
