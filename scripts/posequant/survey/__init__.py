"""Which networks of mmpose reach INT8."""
