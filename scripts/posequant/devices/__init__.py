"""What the networks do on another machine: it is given crops and networks, and gives back outputs and times."""
