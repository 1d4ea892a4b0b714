"""The runtimes behind one interface: what differs between the rows of the result."""
