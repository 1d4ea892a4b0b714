"""The embedded demos: synthetic people and hands in COCO's format, and the small Hourglasses trained on them."""
