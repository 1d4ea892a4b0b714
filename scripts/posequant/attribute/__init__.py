"""Where the error of an INT8 network comes from."""
