"""ARM cores on another processor: qemu runs Debian's Python for arm64, with ncnn's wheel for it (`make arm`).

How long it takes says nothing.
"""

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.base.files import read_json
from posequant.base.verify import installed
from posequant.devices import RUNNER
from posequant.devices.runner import PEOPLE_IN_PIECE

SET_UP = "Set it up with `make arm`; docs/devices.md says what that needs."
# The last words of a program that are told where it fails.
_WORDS = 8


@dataclass(frozen=True)
class Emulation:
    """What `make arm` set up.

    Attributes:
        folder: where it lies.
        versions: of qemu, and of ncnn and numpy for ARM, by name.
    """

    folder: Path
    versions: dict[str, str]

    @classmethod
    def open(cls, folder: Path) -> "Emulation":
        """Return the emulation in a folder.

        Raises:
            InputError: there is none, or it is damaged.
        """
        record = folder / "setup.json"
        if not record.is_file():
            raise InputError(f"{folder}: ARM is not emulated here yet. {SET_UP}")
        content = read_json(record, f"Remove {folder} and run `make arm`.")
        try:
            qemu = content["debian"]["qemu-user-static"]
            return cls(folder.absolute(), {"qemu": qemu, **content["python"]})
        except (KeyError, TypeError) as error:
            raise InputError(f"{record}: not what `make arm` writes. Remove {folder} and run `make arm`.") from error

    @property
    def identity(self) -> list[str]:
        """What it is known again by: the versions."""
        return [f"{name} {version}" for name, version in sorted(self.versions.items())]

    def require_same(self) -> None:
        """Raise `InputError` unless ncnn and numpy are those of this machine."""
        for package, version in installed("ncnn", "numpy").items():
            if self.versions[package] != version:
                raise InputError(f"{self.folder}: has {package} {self.versions[package]}, here is {version}. {SET_UP}")

    def run(self, core: str, script: Path, arguments: Sequence[str | Path], heard: Callable[[str], None]) -> None:
        """Run a script of Python on an emulated core.

        Args:
            core: as qemu names it, such as `cortex-a53`.
            script: the script; it has the standard library, numpy and ncnn.
            arguments: of its command line.
            heard: is told each line that it writes to its standard error.

        Raises:
            InputError: it fails; the message has its last words, and says where a signal ended it.
        """
        python = next((self.folder / "root/usr/bin").glob("python3.*"))
        command = [self.folder / "qemu-aarch64-static", "-cpu", core, python, "-u", script, *arguments]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_"))},
            "QEMU_LD_PREFIX": str(self.folder / "root"),
            "PYTHONHOME": str(self.folder / "root/usr"),
            "PYTHONPATH": str(self.folder / "site"),
            "OMP_NUM_THREADS": "1",
        }
        last: deque[str] = deque(maxlen=_WORDS)
        try:
            process = subprocess.Popen(
                list(map(str, command)), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"{command[0]}: cannot be started ({error.strerror}). {SET_UP}") from error
        with process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    last.append(line.rstrip())
                    heard(line.rstrip())
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise InputError(failure(core, process.returncode, list(last)))

    def run_job(self, core: str, arguments: Sequence[str | Path], target: Path, *, people: int, total: int) -> None:
        """Run the runner of devices on an emulated core, with a bar of crops. It goes on where it was interrupted.

        Args:
            core: as for `run`.
            arguments: of the runner, but for `--out`. No times are measured.
            target: the result to write, .zip.
            people: how many each network is run on.
            total: how many crops all networks are given.

        Raises:
            InputError: as `run`.
        """

        def crops_of(piece: str) -> int:
            """Return how many crops a piece is of, by its name."""
            if piece.startswith("outputs-"):
                return min(PEOPLE_IN_PIECE, people - int(piece[-len("00000.npz") : -len(".npz")]))
            return int(piece.startswith("layers-"))

        there = sum(crops_of(piece.name) for piece in target.with_name(f"{target.name}.pieces").glob("*.npz"))
        with tqdm(total=total, initial=there, desc=core, unit="crop", mininterval=2) as progress:

            def heard(line: str) -> None:
                progress.update(crops_of(line))
                if not line.endswith((".npz", ".json", ": done")):
                    progress.write(line, sys.stderr)

            self.run(core, RUNNER, [*arguments, "--no-latency", "--out", target], heard)


def failure(core: str, status: int, words: Sequence[str]) -> str:
    """Return how an emulated program ended, in words.

    Args:
        core: that was emulated.
        status: what `subprocess` says of its end.
        words: the last lines of its standard error.
    """
    told = re.search(r"uncaught target signal (\d+)", "\n".join(words))
    number = int(told.group(1)) if told else -status
    said = "\n".join(words)
    if number <= 0:
        return f"the program on the emulated {core} failed:\n{said}"
    return (
        f"the program on the emulated {core} crashed ({signal.Signals(number).name}). What it said last:\n{said}\n"
        "If memory lacks, run fewer jobs at a time (-c). Else report it with this log."
    )
