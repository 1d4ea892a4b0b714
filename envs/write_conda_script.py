"""Write posequant.post-deploy.sh, which installs requirements.lock for `snakemake --sdm conda` as `make` does.

Snakemake copies posequant.yaml and the script to a folder of its own, so that the script has to hold the whole lock.
"""

import re
from pathlib import Path

HERE = Path(__file__).parent
LOCK = "requirements.lock"
SCRIPT = """\
#!/usr/bin/env bash
# Written by write_conda_script.py from requirements.lock (make lock), for `snakemake --sdm conda`.
set -euo pipefail
install() {{ pip install --no-deps --require-hashes "$@" --requirement /dev/stdin; }}

install --extra-index-url https://download.pytorch.org/whl/cpu <<'PYTORCH'
{torch}PYTORCH

install <<'BUILD_TOOLS'
{tools}BUILD_TOOLS

install --no-build-isolation --no-binary xtcocotools <<'OTHERS'
{others}OTHERS
"""
TOOLS = {"setuptools", "wheel", "cython", "numpy"}


def read_pins() -> dict[str, str]:
    """Return the lines of each package in the lock, hashes included, by its name."""
    text = re.sub(r"^#.*\n", "", (HERE / LOCK).read_text(), flags=re.MULTILINE)
    return {match[1]: match[0] for match in re.finditer(r"^([^\s=]+)==(?:.*\\\n)*.*\n", text, flags=re.MULTILINE)}


def main() -> None:
    """Write the script."""
    pins = read_pins()
    others = "".join(pin for name, pin in pins.items() if name not in {"torch", *TOOLS})
    tools = "".join(pins[name] for name in sorted(TOOLS))
    (HERE / "posequant.post-deploy.sh").write_text(SCRIPT.format(torch=pins["torch"], tools=tools, others=others))


if __name__ == "__main__":
    main()
