"""Check the environment of `make`: releases, files and wishes of its packages, and what is known to be wrong with them.

It reads envs/*.lock and what is installed beside the interpreter that runs it. Only the last check needs a network.
Exits with 1 if any check finds something.
"""

import argparse
import base64
import csv
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

HERE = Path(__file__).parent
# What packages ask for and need not have; the first of a pair asks for the second.
NEEDLESS = {
    ("mmcv-lite", "opencv-python"): "opencv-python-headless is the same without windows",
    ("mmengine", "opencv-python"): "opencv-python-headless is the same without windows",
    ("mmpose", "opencv-python"): "opencv-python-headless is the same without windows",
    ("mmpose", "chumpy"): "for 3D body models only",
    ("mmpretrain", "modelindex"): "another name of model-index",
    ("mmdeploy", "grpcio"): "for devices at the other end of a network only",
    ("mmdeploy", "protobuf"): "asks for an old release; its files are read by newer ones",
    ("nncf", "ninja"): "for extensions in CUDA only",
    ("nncf", "openvino-telemetry"): "would report use over the network",
    ("nncf", "scikit-learn"): "for pruning only",
    ("openvino", "openvino-telemetry"): "would report use over the network",
    ("torchvision", "torch"): "asks for its own year's; the newer ones of torchvision need its CUDA build",
}


def canonical(name: str) -> str:
    """Return a package's name as the locks spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(lock: Path) -> dict[str, str]:
    """Return the releases of a lock by package, without the name of a build (+cpu), which advisories do not know."""
    return dict(re.findall(r"^([^\s=#]+)==([^\s+]+)", lock.read_text(), flags=re.MULTILINE))


def wrong_releases(installed: list[Distribution], locks: list[Path]) -> Iterator[str]:
    """Yield each package that is missing, is not in a lock, or is there in another release."""
    found = {canonical(one.name): one.version.partition("+")[0] for one in installed}
    allowed = {name: release for lock in locks for name, release in read_pins(lock).items()}
    required = read_pins(HERE / "requirements.lock")
    yield from (f"{name} {required[name]} is not installed" for name in sorted(required.keys() - found.keys()))
    for name in sorted(found.keys() - {"pip"}):
        if name not in allowed:
            yield f"{name} {found[name]} is installed, but in no lock"
        elif allowed[name] != found[name]:
            yield f"{name} {found[name]} is installed, the lock has {allowed[name]}"


def changed_files(installed: list[Distribution]) -> Iterator[str]:
    """Yield each installed file that is missing or whose SHA-256 is not the one that its package came with."""
    for distribution in installed:
        # Not by `files`: some versions of it leave out what is missing.
        for name, written, _ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
            if not written:
                continue
            path = Path(str(distribution.locate_file(name)))
            if not path.is_file():
                yield f"{distribution.name}: {path} is missing"
                continue
            method, _, value = written.partition("=")
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, method).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != value:
                yield f"{distribution.name}: {path} has changed"


def unmet_wishes() -> Iterator[str]:
    """Yield what `pip check` complains about and NEEDLESS does not explain."""
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], stdout=subprocess.PIPE, text=True, check=False)
    for line in checked.stdout.splitlines():
        wish = re.match(r"(\S+) \S+ (?:requires|has requirement) ([\w.-]+)", line)
        if wish and (canonical(wish[1]), canonical(wish[2])) not in NEEDLESS:
            yield line


def vulnerabilities(pip_audit: str, locks: list[Path]) -> tuple[list[str], int]:
    """Ask the package index for advisories about all releases of the locks.

    Args:
        pip_audit: the program.
        locks: to look up.

    Returns:
        A line for each vulnerability, and how many releases the index knew anything about.
    """
    found, known = [], 0
    for lock in locks:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
            pins.writelines(f"{name}=={release}\n" for name, release in read_pins(lock).items())
            pins.flush()
            command = [pip_audit, "--requirement", pins.name, "--no-deps", "--disable-pip", "--format", "json"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except ValueError:  # the index cannot be reached
            continue
        for package in packages:
            known += "vulns" in package
            for one in package.get("vulns", []):
                mended = ", ".join(one["fix_versions"]) or "no release"
                found.append(f"{package['name']} {package['version']}: {one['id']}, mended by {mended} ({lock.name})")
    return found, known


def report(title: str, faults: list[str], good: str) -> bool:
    """Print what a check found, or that all is `good`; return whether it found nothing."""
    print(f"{title}: {good if not faults else f'{len(faults)} found'}", *faults, sep="\n  ")
    return not faults


def main() -> None:
    """Run all checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pip-audit", required=True, help="the program pip-audit")
    parser.add_argument("--require-advisories", action="store_true", help="fail if no advisories can be had")
    arguments = parser.parse_args()

    locks = sorted(HERE.glob("*.lock"))
    in_environment = [lock for lock in locks if lock.name != "tools.lock"]
    installed = list(distributions())
    good = [
        report("Releases", list(wrong_releases(installed, in_environment)), "all as locked, and no other package"),
        report("Files", list(changed_files(installed)), "all as their packages brought them"),
        report("Wishes", list(unmet_wishes()), "all met, but for those known to be needless"),
    ]
    faults, known = vulnerabilities(arguments.pip_audit, locks)
    total = sum(len(read_pins(lock)) for lock in locks)
    good.append(report("Vulnerabilities", faults, f"none in the {known} releases that were checked"))
    if known < total:
        print(f"NOT CHECKED for vulnerabilities: {total - known} of {total} releases.")
        print("  The index gave no advisories about them: it cannot be reached, or it is a mirror that has none.")
        good.append(not arguments.require_advisories)
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
