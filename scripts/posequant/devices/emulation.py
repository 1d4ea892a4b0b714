"""ARM cores on another processor: qemu runs Debian's Python for arm64, with ncnn's wheel for it (`make arm`).

What is computed is what such a core computes, to the last bit. How long it takes says nothing.
"""

import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from posequant.base.errors import InputError
from posequant.base.files import read_json

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
