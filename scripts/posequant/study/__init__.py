"""A first study of a network: what its file does not say is tried on some people."""
