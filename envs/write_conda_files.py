"""Write posequant.yaml and posequant.post-deploy.sh, which name the pins of requirements.lock to conda."""

from pathlib import Path

HERE = Path(__file__).parent
NOTICE = "# Written by write_conda_files.py from requirements.lock (make lock), for `snakemake --sdm conda`.\n"


def read_pins(name: str) -> list[str]:
    """Return the lines `package==version` of the requirements file `name`."""
    lines = (HERE / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def main() -> None:
    """Write both files."""
    without_dependencies = read_pins("requirements-nodeps.in")
    others = [pin for pin in read_pins("requirements.lock") if pin not in without_dependencies]
    (HERE / "posequant.yaml").write_text(
        NOTICE
        + "channels:\n  - conda-forge\ndependencies:\n  - python=3.11\n  - pip\n  - c-compiler\n  - pip:\n"
        + "      - --extra-index-url https://download.pytorch.org/whl/cpu\n"
        + "".join(f"      - {pin}\n" for pin in others)
    )
    (HERE / "posequant.post-deploy.sh").write_text(
        "#!/usr/bin/env bash\n"
        + NOTICE
        + "set -euo pipefail\npip install --no-deps --no-build-isolation --no-binary xtcocotools \\\n"
        + " \\\n".join(f"    {pin}" for pin in without_dependencies)
        + "\n"
    )


if __name__ == "__main__":
    main()
