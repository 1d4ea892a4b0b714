"""Which version this is, as CHANGELOG.md has it. Nothing else stands here: a new version alone reruns nothing."""

__version__ = "0.14.0"
