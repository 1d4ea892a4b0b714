"""How fast a network and a prediction are."""
