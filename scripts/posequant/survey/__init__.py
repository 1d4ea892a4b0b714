"""How far the networks of mmpose come."""
