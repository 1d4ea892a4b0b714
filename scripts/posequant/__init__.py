"""PoseQuant: what the workflow's scripts call. Quantize a pose network and know exactly what it costs."""

__version__ = "0.10.0"
"""Of the project, as CHANGELOG.md has it. Nothing else stands in this file: a new version alone reruns nothing."""
