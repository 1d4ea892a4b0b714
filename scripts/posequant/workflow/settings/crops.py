"""What there is to choose in the crops of an evaluation set."""

CROPS_LIMIT_GB = 4.0
"""What the crops of a whole evaluation set may take on the disk; larger ones are not kept."""
