"""Snakemake's own linter finds nothing in the workflow."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_snakemake_lint_is_clean() -> None:
    command = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Congratulations" in done.stdout + done.stderr
