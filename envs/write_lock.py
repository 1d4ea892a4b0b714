"""Write requirements.lock: all packages as `make lock` resolved them, with the hashes of their files.

Usage: write_lock.py REPORT OTHERS LOCK. REPORT is what `pip install --report` wrote, OTHERS the lines of all packages
but PyTorch, as uv wrote them.
"""

import json
import sys
from pathlib import Path

NOTICE = """\
# Made by `make lock` from requirements.in and requirements-nodeps.in: every package, exactly. A file that has none of
# the hashes of its package is not installed. They are those of all files of a release, for all systems. Of PyTorch
# there is one: the build for the CPU, Linux on x86-64 and Python 3.11. On another system, run `make lock` first.
"""


def torch_lines(report: Path) -> str:
    """Return the pin of PyTorch and the hash of the file that pip installed."""
    for installed in json.loads(report.read_text())["install"]:
        if installed["metadata"]["name"] == "torch":
            digest = installed["download_info"]["archive_info"]["hashes"]["sha256"]
            return f"torch=={installed['metadata']['version']} \\\n    --hash=sha256:{digest}\n"
    sys.exit(f"{report}: pip installed no torch")


def main() -> None:
    """Write the lock."""
    report, others, lock = map(Path, sys.argv[1:])
    lock.write_text(NOTICE + torch_lines(report) + others.read_text())


if __name__ == "__main__":
    main()
