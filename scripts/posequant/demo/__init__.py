"""The embedded demo: synthetic people in COCO format, and the small Hourglass trained on them."""
