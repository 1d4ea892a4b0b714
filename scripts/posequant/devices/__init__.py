"""What the networks do on another machine: it is given crops and networks, and gives back outputs and times."""

from pathlib import Path

RUNNER = Path(__file__).with_name("runner.py")
"""What runs there: one file that needs Python, numpy and ncnn, and nothing else."""
