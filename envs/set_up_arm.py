"""Set up ARM on this machine, emulated: qemu, Debian's Python for arm64, and the locked ncnn and numpy for it.

All lies in one folder; nothing is installed into the system, and no rights are needed beyond those of the folder.
Debian's packages are fetched by apt with a state of its own, which compares them with Debian's signed index; the
wheels are fetched by pip, which compares them with the lock. The folder appears whole or not at all: what was fetched
stays beside it until then, and a second run goes on from there.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Its Python is the one that the lock's wheels are for.
RELEASE, PYTHON = "bookworm", "3.11"
QEMU = "qemu-user-static"
LIBRARIES = (
    *("libc6", "libgcc-s1", "libstdc++6", "libgomp1", "libvulkan1"),
    *("zlib1g", "libbz2-1.0", "liblzma5", "libexpat1", "libffi8", "libssl3", "libuuid1"),
)
PACKAGES = (
    *(f"{part}{PYTHON}-minimal:arm64" for part in ("python", "libpython")),
    f"libpython{PYTHON}-stdlib:arm64",
    *(f"{name}:arm64" for name in LIBRARIES),
)
WHEELS = ("ncnn", "numpy")
# By the age of the C library; Debian's is 2.36.
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)]
# A core that all of it must run on.
CORE = "cortex-a53"


def missing() -> list[str]:
    """Return what this machine lacks for it, in words."""
    faults = []
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        faults.append(f"Linux on x86-64 is needed; this is {platform.system()} on {platform.machine()}")
    if absent := [program for program in ("apt-get", "dpkg-deb", "tar") if not shutil.which(program)]:
        faults.append(f"missing: {', '.join(absent)}; Debian and Ubuntu have it")
    if not KEYRING.is_file():
        faults.append(f"{KEYRING} is missing: install debian-archive-keyring")
    return faults


def locked(lock: Path) -> str:
    """Return the lines of a lock for `WHEELS`, hashes included."""
    return "".join(
        block.group()
        for block in re.finditer(r"^(\S+?)==.*?[^\\]$\n", lock.read_text(), flags=re.MULTILINE | re.DOTALL)
        if block.group(1) in WHEELS
    )


def made_by(lines: str) -> str:
    """Return a hash of all that decides what is set up: this script, and the locked lines."""
    return hashlib.sha256(Path(__file__).read_bytes() + lines.encode()).hexdigest()


def run(command: Sequence[str | Path], environment: dict[str, str] | None = None, given: str = "") -> str:
    """Return what a program prints; end with its last words where it fails."""
    done = subprocess.run(
        command, input=given, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        sys.exit(f"{words}\nerror: {Path(command[0]).name} failed. Run it again: it goes on from here.")
    return done.stdout


def fetch_packages(folder: Path, mirror: str) -> list[Path]:
    """Return Debian's packages, fetched into `folder` as far as they are not there."""
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [arch=amd64,arm64 signed-by={KEYRING}] {mirror} {RELEASE} main\n")
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": folder,
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": "amd64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    apt = ["apt-get", "--quiet", *(f"--option={name}={value}" for name, value in options.items())]
    run([*apt, "update", "--error-on=any"])
    # apt-get downloads into the working folder.
    download = ["env", f"--chdir={folder / 'debs'}", *apt, "download", f"{QEMU}:amd64", *PACKAGES]
    # 'ADDRESS' FILE SIZE HASH. An interrupted run may have left others, of versions that the index had then.
    names = re.findall(r"^'\S+' (\S+\.deb) ", run([*download, "--print-uris"]), flags=re.MULTILINE)
    run(download)
    return sorted(folder / "debs" / name for name in names)


def unpack(packages: Sequence[Path], target: Path) -> dict[str, str]:
    """Unpack Debian's packages into `target`; return the version of each by its name."""
    for package in packages:
        if package.name.startswith(QEMU):
            member = "./usr/bin/qemu-aarch64-static"
            taken = f'dpkg-deb --fsys-tarfile "$1" | tar -x --strip-components=3 -C "$2" {member}'
            run(["bash", "-o", "pipefail", "-c", taken, "bash", package, target])
        else:
            run(["dpkg-deb", "--extract", package, target / "root"])
    # NAME_VERSION_ARCHITECTURE.deb, with %3a for a colon.
    named = [package.stem.split("_") for package in packages]
    return {name: version.replace("%3a", ":") for name, version, _ in named}


def install_wheels(lines: str, target: Path) -> None:
    """Unpack the wheels that locked lines name, for ARM, into `target`."""
    platforms = [f"--platform={name}" for name in PLATFORMS]
    chosen = ["--only-binary=:all:", "--no-deps", "--require-hashes", "--no-compile", "--requirement=/dev/stdin"]
    where = [f"--target={target}", "--implementation=cp", f"--python-version={PYTHON}", "--upgrade"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    run([*pip, *platforms, *chosen, *where], given=lines)


def versions_inside(folder: Path) -> dict[str, str]:
    """Return the versions of `WHEELS` as the emulated Python in `folder` imports them."""
    names = ", ".join(WHEELS)
    code = f"import json, {names}; print(json.dumps({{one.__name__: one.__version__ for one in ({names})}}))"
    environment = {
        "QEMU_LD_PREFIX": str(folder / "root"),
        "PYTHONHOME": str(folder / "root/usr"),
        "PYTHONPATH": str(folder / "site"),
    }
    python = folder / f"root/usr/bin/python{PYTHON}"
    found: dict[str, str] = json.loads(
        run([folder / "qemu-aarch64-static", "-cpu", CORE, python, "-c", code], environment).splitlines()[-1]
    )
    return found


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", type=Path, default=HERE / "requirements.lock", help="where the wheels are locked")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian", help="of Debian (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    target, draft = arguments.out.absolute(), arguments.out.absolute().with_name(f"{arguments.out.name}-part")
    lines = locked(arguments.lock)
    record = target / "setup.json"
    if record.is_file() and json.loads(record.read_text())["made_by"] == made_by(lines):
        print(f"{arguments.out} is set up already")
        return
    if target.exists() and not record.is_file() and (not target.is_dir() or any(target.iterdir())):
        sys.exit(f"error: {arguments.out} is there already, and not of this script. Give another --out, or remove it.")
    if faults := missing():
        sys.exit("error: ARM cannot be emulated here:\n" + "\n".join(f"  - {fault}" for fault in faults))
    print(f"Setting up {arguments.out} (about 140 MB; 100 MB are downloaded)", flush=True)
    print("[1/3] Debian's packages", flush=True)
    packages = fetch_packages(draft / "apt", arguments.mirror)
    made = draft / "made"
    shutil.rmtree(made, ignore_errors=True)
    (made / "root").mkdir(parents=True)
    versions = unpack(packages, made)
    print("[2/3] ncnn and numpy", flush=True)
    install_wheels(lines, made / "site")
    print("[3/3] first start", flush=True)
    content = {"made_by": made_by(lines), "debian": versions, "python": versions_inside(made)}
    (made / "setup.json").write_text(json.dumps(content, indent=2) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    shutil.rmtree(draft)
    print("It works: " + ", ".join(f"{name} {version}" for name, version in content["python"].items()))


if __name__ == "__main__":
    main()
