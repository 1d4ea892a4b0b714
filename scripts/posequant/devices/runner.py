#!/usr/bin/env python3
"""Run ncnn networks on this machine: their outputs for crops of people, and how long they take.

One file that needs Linux (or Android), Python 3.8, numpy and ncnn (pip install numpy ncnn), and nothing else. By hand:

    python runner.py --package networks.zip --people crops.npz --out result.zip

Give the result to PoseQuant on the machine that made the other two files; it decodes and scores the outputs there.

--package is what PoseQuant made: a zip archive, or a folder with the same files, with `networks.json` and the networks
that it names, or the package of a single row (package.zip). --people is a file of numpy: `crops`, uint8 (N, H, W, 3) in
BGR, which are normalised here, or float32 (N, 3, H, W), which are normalised already.

The work is done in pieces. Each is a file in the folder OUT.pieces, there whole or not at all; after an interruption
the same command goes on with those that are missing. In the end all are put into OUT, and the folder is removed.

  facts.json             what this machine is
  load-ROW.json          how long a network takes to load, and its memory; or why it does not run here
  latency-0000.json      times of some rounds; in each round every network is run once with each number of threads
  outputs-ROW-00000.npz  outputs for some people, from that one on, float32, as ncnn shapes them
  layers-ROW-00000.npz   with --layers: the values of every blob for one crop

Only one run that measures time works at a time on a machine. The lock is the file posequant.lock in the folder for
temporary files; one that a dead process left is nobody's.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator, NamedTuple, Sequence

PROTOCOL = 1
GREETING = f"posequant-runner {PROTOCOL}"
BUSY = 75  # the exit status of a run that finds another at work, sysexits.h's EX_TEMPFAIL
NETWORKS_SCHEMA, PACKAGE_SCHEMA = "posequant-networks/1", "posequant-package/1"

# In an environment, what it was made of: by this it is known to be ours.
MADE = "posequant.json"
PEOPLE_IN_PIECE = 8
ROUNDS_IN_PIECE = 5
WARM_UP_ROUNDS = 2
MINIMUM_ROUNDS = 10
COOLED_WITHIN = 5.0  # degrees of what was there at first
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a core is called by its implementer and part in /proc/cpuinfo (arch/arm64/include/asm/cputype.h of Linux).
CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd48"): "Cortex-X2",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4d"): "Cortex-A715",
    ("0x41", "0xd4e"): "Cortex-X3",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd80"): "Cortex-A520",
    ("0x41", "0xd81"): "Cortex-A720",
    ("0x41", "0xd82"): "Cortex-X4",
}
# Features that matter to reduced precision, by the words of /proc/cpuinfo.
FEATURES = {
    "asimd": "NEON",
    "neon": "NEON",
    "asimdhp": "FP16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "BF16",
    "sve": "SVE",
    "sve2": "SVE2",
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_int8": "AMX INT8",
}


# The same of 64-bit ARM: which word has it, and which bit (asm/hwcap.h of Linux; AT_HWCAP is 16, AT_HWCAP2 26).
HWCAPS = {
    "NEON": (16, 1),
    "FP16": (16, 10),
    "dotprod": (16, 20),
    "SVE": (16, 22),
    "SVE2": (26, 1),
    "i8mm": (26, 13),
    "BF16": (26, 14),
}


class RunError(Exception):
    """What the user can do something about; it ends the run with its message."""


class Row(NamedTuple):
    """A network: its name, its two files, the options of ncnn that belong to it, its input and its outputs."""

    name: str
    param: Path
    bin: Path
    options: dict[str, Any]
    input: str
    outputs: list[str]
    blobs: list[str]


class Setting(NamedTuple):
    """How many threads work, and on which cores: 0 all, 1 the little ones, 2 the big ones, as in ncnn."""

    name: str
    threads: int
    cores: int


# Files and folders.


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` when all is on the disk."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def refused(path: Path, error: OSError) -> RunError:
    """Return why `path` cannot be written, and what to do."""
    if error.errno in FULL:
        place = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free / 1e6
        return RunError(
            f"{path}: cannot be written: the disk, a quota or a limit of file sizes is full ({free:.0f} MB are free "
            "there). Make space and run the same command again: it goes on from here."
        )
    return RunError(f"{path}: cannot be written: {error.strerror}. Choose another folder.")


def write_json(path: Path, content: Any) -> None:
    """Write a piece of JSON."""
    with whole(path) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write a piece of arrays, by name, as numpy's .npz."""
    import numpy as np

    with whole(path) as draft, zipfile.ZipFile(str(draft), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, values in arrays.items():
            stream = io.BytesIO()
            np.save(stream, values)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), stream.getvalue(), zipfile.ZIP_DEFLATED, 1)


def read_text(path: str) -> str:
    """Return what a file of the system says; nothing where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# One at a time.


@contextlib.contextmanager
def alone(job: str, wait: float = 0) -> Iterator[None]:
    """Hold this machine's lock; wait for its holder so many seconds, then end."""
    import fcntl

    path = Path(tempfile.gettempdir()) / "posequant.lock"
    deadline, told = time.monotonic() + wait, False
    while True:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.fstat(descriptor).st_ino == path.stat().st_ino
        except FileNotFoundError:  # its holder has just removed it
            same = False
        except OSError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
            os.close(descriptor)
            at_work = f"another run is at work on this machine: {holder}"
            if time.monotonic() < deadline:
                if not told:
                    say(f"{at_work}; waiting for it")
                told = True
                time.sleep(0.5)
                continue
            say(f"error: {at_work}. Wait for it, or end it.")
            sys.exit(BUSY)
        if same:
            break
        os.close(descriptor)
    with contextlib.suppress(OSError):  # of another user's
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, since {now()}, job {job}".encode(), 0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Return a lock, opened; whoever may not write to another's can lock it still."""
    try:
        try:
            descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except PermissionError:
            return os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise RunError(f"{path}: cannot be opened ({error.strerror}). Remove it, or have its owner do so.") from error
    with contextlib.suppress(PermissionError):  # another user's
        os.fchmod(descriptor, 0o666)  # whatever the umask is
    return descriptor


def now() -> str:
    """Return the time, in words that are the same everywhere."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def say(text: str) -> None:
    """Tell the user how far it is."""
    print(text, file=sys.stderr, flush=True)


# This machine.


def facts() -> dict[str, Any]:
    """Return what this machine is, as far as Linux tells."""
    listing = read_text("/proc/cpuinfo")
    cores = core_names(listing)
    # An emulated ARM core finds the listing of another processor.
    model = [] if platform.machine() == "aarch64" else entries(listing, "model name")[:1]
    found: dict[str, Any] = {
        "board": read_text("/proc/device-tree/model") or read_text("/sys/class/dmi/id/product_name"),
        "cpu": sorted(set(cores or model)) or [platform.machine()],
        "architecture": platform.machine(),
        "cores": [
            {
                "core": core,
                "type": cores[core] if core < len(cores) else "",
                "max_mhz": in_mhz(of_core(core, "cpufreq/cpuinfo_max_freq")),
                "capacity": number(of_core(core, "cpu_capacity")),
                "governor": of_core(core, "cpufreq/scaling_governor") or None,
            }
            for core in usable_cores()
        ],
        "features": told_features() if tells_features(platform.machine(), sys.maxsize) else features(listing),
        "memory_mb": memory("MemTotal"),
        "free_memory_mb": memory("MemAvailable"),
        "system": system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "time": now(),
    }
    found["versions"] = {}
    for name in ("ncnn", "numpy"):
        with contextlib.suppress(ImportError):
            found["versions"][name] = __import__(name).__version__
    return found


def entries(listing: str, key: str) -> list[str]:
    """Return the values of a key of /proc/cpuinfo, one for each core that has it."""
    pairs = [line.partition(":") for line in listing.splitlines()]
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def core_names(listing: str) -> list[str]:
    """Return the type of each core of /proc/cpuinfo of ARM; nothing on others."""
    pairs = zip(entries(listing, "CPU implementer"), entries(listing, "CPU part"))
    return [CORES.get(pair, "implementer {} part {}".format(*pair)) for pair in pairs]


def features(listing: str) -> list[str]:
    """Return the features that every core of a /proc/cpuinfo has, by their common names."""
    cores = [set(line.split()) for line in entries(listing, "Features") + entries(listing, "flags")]
    common = set.intersection(*cores) if cores else set()
    return list(dict.fromkeys(name for word, name in FEATURES.items() if word in common))


def tells_features(machine: str, largest: int) -> bool:
    """Whether the system tells a program its features as 64-bit ARM does, by the machine and the largest size.

    To a program of 32 bits the same kernel gives bits of another meaning.
    """
    return machine == "aarch64" and largest > 1 << 32


def told_features() -> list[str]:
    """Return the features that the system tells a program of 64-bit ARM, those that all cores have."""
    value = ctypes.CDLL(None).getauxval
    value.restype, value.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return [name for name, (kind, bit) in HWCAPS.items() if value(kind) >> bit & 1]


def usable_cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not every Python of Android has it
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def of_core(core: int, name: str) -> str:
    """Return what the system says of a core."""
    return read_text(f"/sys/devices/system/cpu/cpu{core}/{name}")


def memory(key: str) -> int | None:
    """Return an amount of /proc/meminfo, in MB."""
    found = entries(read_text("/proc/meminfo"), key)
    return int(found[0].split()[0]) // 1024 if found else None


def system() -> str:
    """Return the name of the operating system."""
    lines = [line.partition("=") for line in read_text("/etc/os-release").splitlines()]
    names = [value.strip('"') for key, _, value in lines if key == "PRETTY_NAME"]
    return names[0] if names else platform.platform()


def number(text: str) -> int | None:
    """Return a whole number, None for another text."""
    return int(text) if text.lstrip("-").isdigit() else None


def in_mhz(text: str) -> float | None:
    """Return a frequency of /sys, which is in kHz, in MHz."""
    khz = number(text)
    return None if khz is None else khz / 1000


def temperature() -> float | None:
    """Return the highest of this machine's temperatures, in degrees Celsius; None where /sys has none."""
    zones = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    found = [number(read_text(str(zone))) for zone in zones]
    # Sensors that are off say 0, or what nothing has.
    sound = [value / 1000 for value in found if value is not None and 0 < value < 150000]
    return max(sound) if sound else None


def frequencies(which: str) -> list[float]:
    """Return the present or the highest permitted frequency of each core that tells it, in MHz."""
    found = (in_mhz(of_core(core, f"cpufreq/{which}")) for core in usable_cores())
    return [value for value in found if value is not None]


# Networks.


def opened(package: Path, folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """Return the networks of a package, and its description; an archive is unpacked into `folder`."""
    if package.is_dir():
        folder = package
    else:
        try:
            with zipfile.ZipFile(str(package)) as archive:
                archive.extractall(str(folder))
        except FileNotFoundError:
            raise RunError(f"{package}: no such file.") from None
        except (zipfile.BadZipFile, OSError) as error:
            if getattr(error, "errno", None) in FULL:
                raise refused(folder, error) from error  # type: ignore[arg-type]
            raise RunError(f"{package}: not a package, or damaged ({error}). Copy it again.") from error
    for name in ("networks.json", "model.json"):
        if (folder / name).is_file():
            described = json.loads((folder / name).read_text(encoding="utf-8"))
            break
    else:
        raise RunError(f"{package}: has no networks.json. Make it by PoseQuant.")
    return _rows_of(described, folder, package), described


def _rows_of(described: dict[str, Any], folder: Path, package: Path) -> list[Row]:
    """Return the rows of a description, their files checked."""
    schema = described.get("schema")
    if schema == NETWORKS_SCHEMA:
        rows = described["rows"]
    elif schema == PACKAGE_SCHEMA and described["runtime"]["name"] == "ncnn":
        rows = {described["variant"]: {key: described["runtime"][key] for key in ("files", "options")}}
    else:
        raise RunError(f"{package}: not a package of ncnn networks that this program knows ({schema}).")
    for name, digest in described["sha256"].items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise RunError(f"{package}: {name} in it is missing or damaged. Copy it again.")
    opened_rows = []
    for name, row in rows.items():
        param, weights = (folder / file for file in row["files"])
        found = blobs_of(param)
        chosen = row.get("input", found[0]), row.get("outputs", found[1])
        opened_rows.append(Row(name, param, weights, row["options"], *chosen, found[2]))
    return opened_rows


def blobs_of(param: Path) -> tuple[str, list[str], list[str]]:
    """Return the input of a .param, its outputs, which no layer reads, and all its blobs in order."""
    source, read, made = "", set(), []
    for line in param.read_text(encoding="utf-8").splitlines()[2:]:
        words = line.split()
        if len(words) < 4:
            continue
        bottoms, tops = int(words[2]), int(words[3])
        read.update(words[4 : 4 + bottoms])
        made += words[4 + bottoms : 4 + bottoms + tops]
        source = words[4 + bottoms] if words[0] == "Input" else source
    outputs = [blob for blob in made if blob not in read]
    return source, sorted(outputs, key=lambda name: (len(name), name)), made


class Network:
    """A row, loaded in ncnn."""

    def __init__(self, row: Row, threads: int = 1) -> None:
        """Load it for so many threads: ncnn lays weights out for their number, and computes by it."""
        import ncnn

        self.row = row
        self.net = ncnn.Net()
        for name, value in row.options.items():
            if not hasattr(self.net.opt, name):
                raise RunError(f"row {row.name}: the ncnn here has no option {name}. Install the pinned version.")
            setattr(self.net.opt, name, value)
        self.net.opt.num_threads = threads
        if self.net.load_param(str(row.param)) != 0:
            raise RunError(f"row {row.name}: ncnn cannot load it; its reason is above.")
        # ncnn has switched off what there is not, and would work on the CPU without a word.
        if row.options.get("use_vulkan_compute") and not self.net.opt.use_vulkan_compute:
            raise RunError(f"row {row.name}: ncnn finds no Vulkan device here, and it is a network for one.")
        if self.net.load_model(str(row.bin)) != 0:
            raise RunError(f"row {row.name}: ncnn cannot load it; its reason is above.")

    def extract(self, crop: Any, blobs: Sequence[str]) -> list[Any]:
        """Return blobs for a crop, float32 (3, H, W), as arrays of their own."""
        import ncnn
        import numpy as np

        contiguous = np.ascontiguousarray(crop)  # a Mat made of an array borrows its memory: it has a name
        extractor = self.net.create_extractor()
        extractor.input(self.row.input, ncnn.Mat(contiguous).clone())
        found = []
        for blob in blobs:
            status, mat = extractor.extract(blob)
            if status != 0 or mat.empty():
                raise RunError(f"row {self.row.name}: ncnn fails to compute blob {blob}.")
            found.append(np.array(mat))
        return found


class Work(NamedTuple):
    """What is timed: a network with a number of threads, and what loads it."""

    row: Row
    setting: Setting
    loaded: Callable[[Row, int], Network]


def keeping(load: Callable[[Row, int], Network]) -> Callable[[Row, int], Network]:
    """Return what loads each network once."""
    kept: dict[tuple[str, int], Network] = {}

    def loaded(row: Row, threads: int) -> Network:
        if (row.name, threads) not in kept:
            kept[row.name, threads] = load(row, threads)
        return kept[row.name, threads]

    return loaded


class Crops:
    """The crops of people, each normalised when it is asked for: as floats they would take four times the memory."""

    def __init__(self, path: Path, described: dict[str, Any], limit: int | None = None) -> None:
        """Read a file of them, for networks of a description."""
        import numpy as np

        try:
            with np.load(str(path)) as file:
                self.stored = file["crops"][:limit]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RunError(f"{path}: not a file of crops, or damaged ({error}). Copy it again.") from error
        self.input = described["input"]
        width, height = self.input["size"]
        form = {"uint8": (height, width, 3), "float32": (3, height, width)}.get(str(self.stored.dtype))
        if self.stored.shape[1:] != form or not len(self.stored):
            raise RunError(
                f"{path}: holds {self.stored.dtype} {self.stored.shape}, but the networks take crops of {width} x "
                f"{height}."
            )

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.stored)

    def __getitem__(self, place: int) -> Any:
        """Return one as the networks take it, float32 (3, H, W)."""
        import numpy as np

        crop = self.stored[place]
        if crop.dtype == np.uint8:
            step = -1 if self.input["channels"] == "RGB" else 1
            # To the last bit as PoseQuant does it (posequant/data/crops.py).
            crop = crop.transpose(2, 0, 1)[::step].astype(np.float32, order="C")
            crop -= np.array(self.input["mean"], np.float32).reshape(3, 1, 1)
            crop /= np.array(self.input["std"], np.float32).reshape(3, 1, 1)
        return crop


# The pieces.


class Job:
    """What is to be done, in pieces that are files of a folder."""

    def __init__(
        self, arguments: argparse.Namespace, pieces: Path, unpacked: Path, done: Callable[[str], None]
    ) -> None:
        """Open the package and the people, and see that the pieces there, if any, are of this job."""
        self.folder = pieces
        self.done = done
        self.threads: int = arguments.threads or len(usable_cores())
        self.arguments = arguments
        self.rows, described = opened(arguments.package, unpacked)
        if arguments.rows:
            known = {row.name: row for row in self.rows}
            if unknown := [name for name in arguments.rows if name not in known]:
                raise RunError(f"--rows {unknown[0]}: the package has {', '.join(known)}.")
            self.rows = [known[name] for name in arguments.rows]
        self.crops = Crops(arguments.people, described, arguments.limit)
        content = {
            "protocol": PROTOCOL,
            "files": {row.name: [sha256(row.param), sha256(row.bin)] for row in self.rows},
            "people": sha256(arguments.people),
            "count": len(self.crops),
            "rows": [row.name for row in self.rows],
            "options": {row.name: row.options for row in self.rows},
            # Outputs do not depend on it.
            "threads": None if arguments.no_latency else self.threads,
            "layers": arguments.layers,
            "latency": None if arguments.no_latency else [arguments.rounds, arguments.seconds],
        }
        try:
            pieces.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(pieces, error) from error
        path = pieces / "job.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != content:
            raise RunError(f"{pieces}: holds pieces of another job. Remove the folder, or give another --out.")
        if not path.is_file():
            write_json(path, content)

    def run(self) -> None:
        """Make all pieces that are missing, and tell of each that is there."""
        self.done("job.json")
        self.piece("facts.json", _write_facts)
        for row in self.rows:
            self.piece(f"load-{row.name}.json", partial(self.load, row))
        sound = [row for row in self.rows if "failed" not in self.read(f"load-{row.name}.json")]
        if sound and not self.arguments.no_latency:
            self.measure(sound)
        for row in sound:
            network = Network(row)
            if not self.arguments.no_outputs:
                self.infer(network)
            for place in range(min(self.arguments.layers, len(self.crops))):
                self.piece(f"layers-{row.name}-{place:05d}.npz", partial(self.layers, network, place))

    def piece(self, name: str, make: Callable[[Path], None]) -> None:
        """Make a piece unless it is there."""
        if not (self.folder / name).is_file():
            make(self.folder / name)
            say(name)
        self.done(name)

    def read(self, name: str) -> Any:
        """Return a piece of JSON."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def load(self, row: Row, path: Path) -> None:
        """Load and run a network in a process of its own, which may crash, and write how that went."""
        answer, question = os.pipe()
        # The thread that waits for the end of the connection has no part in the child.
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        child = os.fork()
        if child == 0:
            try:
                os.write(question, json.dumps(_loaded(row, self.crops[0])).encode())
            except BaseException as error:
                os.write(question, json.dumps({"failed": str(error) or type(error).__name__}).encode())
            finally:
                os._exit(0)
        os.close(question)
        with os.fdopen(answer, "rb") as stream:
            text = stream.read()
        _, status = os.waitpid(child, 0)
        write_json(path, json.loads(text.decode()) if text else {"failed": f"crashed (signal {status & 127})"})

    def infer(self, network: Network) -> None:
        """Compute the outputs for all crops, each on one thread: the order of sums depends on their number."""
        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(self.crops), PEOPLE_IN_PIECE):
                name = f"outputs-{network.row.name}-{start:05d}.npz"
                self.piece(name, partial(self.outputs, network, pool, start))

    def outputs(self, network: Network, pool: ThreadPoolExecutor, start: int, path: Path) -> None:
        """Write the outputs for the crops of a piece, by their names, float32 (N, ...)."""
        import numpy as np

        names = network.row.outputs
        places = range(start, min(start + PEOPLE_IN_PIECE, len(self.crops)))
        rows = list(pool.map(lambda place: network.extract(self.crops[place], names), places))
        write_arrays(path, {name: np.stack(found) for name, found in zip(names, zip(*rows))})

    def layers(self, network: Network, place: int, path: Path) -> None:
        """Write all blobs for a crop, by their names."""
        blobs = network.row.blobs
        write_arrays(path, dict(zip(blobs, network.extract(self.crops[place], blobs))))

    def measure(self, rows: Sequence[Row]) -> None:
        """Time all networks in turn, in rounds; between rounds wait until the machine is as cool as it was at first."""
        settings = thread_settings(self.threads)
        needed = sum(self.read(f"load-{row.name}.json")["memory_mb"] for row in rows)
        needed *= len({setting.threads for setting in settings})
        # Those that do not fit into the memory all at once are loaded whenever it is their turn.
        loaded = keeping(Network) if needed < (memory("MemAvailable") or 0) / 2 else Network
        works = [Work(row, setting, loaded) for row in rows for setting in settings]
        spent, first, warm = 0.0, state(), False
        for start in range(0, self.arguments.rounds, ROUNDS_IN_PIECE):
            name = f"latency-{start // ROUNDS_IN_PIECE:04d}.json"
            if start >= MINIMUM_ROUNDS and spent > self.arguments.seconds:
                break
            if not warm and not (self.folder / name).is_file():
                for number in range(WARM_UP_ROUNDS):
                    for work in works:
                        self.timed(work, number)
                warm = True
            numbers = range(start, min(start + ROUNDS_IN_PIECE, self.arguments.rounds))
            self.piece(name, partial(self.rounds, works, numbers, first))
            there = self.read(name)
            # What an earlier run found at first holds: this one may have started on a machine that was warm.
            spent, first = spent + there["seconds"], there["at_first"]
        on_cores(0)

    def rounds(self, works: Sequence[Work], numbers: Sequence[int], first: dict[str, Any], path: Path) -> None:
        """Time some rounds, and write the times in the order of `works`."""
        start = time.monotonic()
        rounds = [self.round(works, number, first) for number in numbers]
        content = {
            "works": [[work.row.name, *work.setting] for work in works],
            "at_first": first,
            "seconds": time.monotonic() - start,
            "rounds": rounds,
        }
        write_json(path, content)

    def round(self, works: Sequence[Work], number: int, first: dict[str, Any]) -> dict[str, Any]:
        """Return the times of one round, in the order of `works`, and how warm and fast the machine was."""
        waited = self.cooled(first)
        before = state()
        times = [0.0] * len(works)
        for place in order_of_round(number, len(works)):
            times[place] = 1000 * self.timed(works[place], number)
        return {"milliseconds": times, "waited_s": waited, "before": before, "after": state()}

    def cooled(self, first: dict[str, Any]) -> float:
        """Wait until temperature and permitted frequency are what they were, but not for ever; return for how long."""
        start = time.monotonic()
        while time.monotonic() - start < self.arguments.cool and not settled(state(), first):
            time.sleep(1)
        return time.monotonic() - start

    def timed(self, work: Work, number: int) -> float:
        """Return how long a network takes for a crop, in seconds, right after it has taken another."""
        network = work.loaded(work.row, work.setting.threads)
        on_cores(work.setting.cores)
        crops = [self.crops[place % len(self.crops)] for place in (number, number + 1)]
        network.extract(crops[0], work.row.outputs)
        start = time.perf_counter()
        network.extract(crops[1], work.row.outputs)
        return time.perf_counter() - start


def _write_facts(path: Path) -> None:
    write_json(path, facts())


def _loaded(row: Row, crop: Any) -> dict[str, Any]:
    import resource

    def resident() -> int:
        return int(entries(read_text("/proc/self/status"), "VmRSS")[0].split()[0])

    before, start = resident(), time.perf_counter()
    network = Network(row)
    seconds = time.perf_counter() - start
    network.extract(crop, row.outputs)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "memory_mb": (most - before) / 1024, "bytes": row.bin.stat().st_size}


def state() -> dict[str, Any]:
    """Return how warm this machine is, how fast it runs, and how fast it may."""
    present, permitted = frequencies("scaling_cur_freq"), frequencies("scaling_max_freq")
    return {
        "celsius": temperature(),
        "mhz": max(present) if present else None,
        "permitted_mhz": sum(permitted) if permitted else None,
    }


def settled(here: dict[str, Any], first: dict[str, Any]) -> bool:
    """Whether this machine is about as cool as it was at first, and may run as fast; yes where it tells neither."""
    cool = None in (here["celsius"], first["celsius"]) or here["celsius"] <= first["celsius"] + COOLED_WITHIN
    return cool and (here["permitted_mhz"] or 0) >= (first["permitted_mhz"] or 0)


def thread_settings(threads: int) -> list[Setting]:
    """Return with how many threads networks are timed on this machine, and on which cores."""
    import ncnn

    # Elsewhere cores that differ in speed a little are not of two kinds.
    arm = platform.machine().startswith(("aarch64", "arm"))
    return settings_for(threads, ncnn.get_big_cpu_count(), ncnn.get_little_cpu_count() if arm else 0)


def settings_for(threads: int, big: int, little: int) -> list[Setting]:
    """Return one thread and several; on big and on little cores, where there are so many of both."""
    if not (big and little):
        found = [Setting("1 thread", 1, 0)]
    else:
        found = [Setting("1 thread, big core", 1, 2), Setting("1 thread, little core", 1, 1)]
        if min(threads, big) > 1:
            found.append(Setting(f"{min(threads, big)} threads, big cores", min(threads, big), 2))
    return found + ([Setting(f"{threads} threads", threads, 0)] if threads > 1 else [])


def on_cores(cores: int) -> None:
    """Have ncnn's threads, and this one, on all, the little or the big cores."""
    import ncnn

    if ncnn.get_cpu_powersave() != cores:
        ncnn.set_cpu_powersave(cores)


def order_of_round(number: int, count: int) -> list[int]:
    """Return in which order a round runs `count` networks: each comes after each other one equally often.

    Source: Williams, Experimental designs balanced for the estimation of residual effects of treatments, 1949.
    """
    zigzag = [(place + 1) // 2 if place % 2 else (count - place // 2) % count for place in range(count)]
    order = [(place + number) % count for place in zigzag]
    return order[::-1] if count % 2 and number // count % 2 else order


# By hand.


def by_hand(arguments: argparse.Namespace) -> None:
    """Do a job, and put its pieces into one file."""
    pieces = Path(str(arguments.out) + ".pieces")
    names: list[str] = []
    lock = contextlib.nullcontext() if arguments.no_latency else alone(str(arguments.out.absolute()))
    with lock, tempfile.TemporaryDirectory() as unpacked:
        Job(arguments, pieces, Path(unpacked), names.append).run()
    with whole(arguments.out) as draft, zipfile.ZipFile(str(draft), "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.write(str(pieces / name), name)
    shutil.rmtree(str(pieces))
    say(f"{arguments.out}: done")


# From another machine. What it sends comes in, and what it gets goes out, as lines of JSON and files behind them.


def receive(arguments: argparse.Namespace, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Take the files of a job in: told their names, hashes and sizes, answer with those that are missing."""
    listed, folder = json.loads(stdin.readline()), arguments.receive
    with alone(arguments.job, arguments.wait):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(folder, error) from error
        missing = [one for one in listed if not _is_there(folder / one["name"], one["sha256"])]
        size, free = sum(one["size"] for one in missing), shutil.disk_usage(str(folder)).free
        if size > free:
            raise RunError(f"{folder}: the files take {size / 1e6:.0f} MB, but {free / 1e6:.0f} MB are free.")
        send(stdout, [one["name"] for one in missing])
        for one in missing:
            with whole(folder / one["name"]) as draft:
                with draft.open("wb") as stream:
                    left = one["size"]
                    while left:
                        block = stdin.read(min(left, 1 << 20))
                        if not block:
                            raise RunError(f"the connection was lost while {one['name']} was sent.")
                        stream.write(block)
                        left -= len(block)
                if sha256(draft) != one["sha256"]:
                    raise RunError(f"{one['name']}: arrived damaged. Run again.")
        send(stdout, "received")


def _is_there(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def attached(arguments: argparse.Namespace, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Do a job and send each piece that the other side has not yet; end when the connection does."""
    has = set(json.loads(stdin.readline()))
    taken = threading.Event()

    def watch() -> None:
        if stdin.readline():
            taken.set()
            return
        # Nobody is there any more. What is done is on the disk.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

    def done(name: str) -> None:
        if name in has:
            return
        content = (pieces / name).read_bytes()
        send(stdout, {"piece": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        stdout.write(content)
        stdout.flush()

    pieces = arguments.attached / "pieces"
    with alone(arguments.job, arguments.wait):
        Job(arguments, pieces, arguments.attached / "networks", done).run()
        send(stdout, "all")
        if taken.wait(60):
            shutil.rmtree(str(arguments.attached))
            # What else is there.
            send(stdout, names_in(arguments.attached.parent))


def send(stdout: BinaryIO, content: Any) -> None:
    """Send a line of JSON."""
    stdout.write(json.dumps(content).encode() + b"\n")
    stdout.flush()


def install(arguments: argparse.Namespace) -> None:
    """Make a Python environment with packages, once."""
    folder, packages = arguments.install, arguments.requirements
    content = {"packages": packages, "python": platform.python_version()}
    with alone(arguments.job, arguments.wait):
        if made_by(folder) == content:
            return
        say(f"installing {' and '.join(packages)} into {folder}")
        try:
            remove_environment(folder)
            folder.mkdir(parents=True)
        except OSError as error:
            raise refused(folder, error) from error
        # Before all else, so that what an interruption leaves is known to be ours.
        write_json(folder / MADE, None)
        hint = "Install what is missing (Debian: apt install python3-venv), or name a Python that has numpy and ncnn."
        _called([sys.executable, "-m", "venv", str(folder)], "no virtual environment can be made. " + hint, folder)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--no-cache-dir"]
        # To build ncnn would take hours on a small board.
        pip += ["--only-binary", ":all:"]
        _called([*pip, *packages], f"pip cannot install {' and '.join(packages)}.", folder)
        write_json(folder / MADE, content)


def _called(command: Sequence[str], fault: str, folder: Path) -> None:
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if found.returncode == 0:
        return
    remove_environment(folder)
    if "No space left" in found.stdout or "Disk quota" in found.stdout:
        raise refused(folder, OSError(errno.ENOSPC, "no space"))
    end = "\n".join(found.stdout.strip().splitlines()[-8:])
    raise RunError(f"{fault} It says:\n{end}")


def made_by(folder: Path) -> Any:
    """Return what an environment was made of; None where it is not finished, or not ours."""
    text = read_text(str(folder / MADE))
    return json.loads(text) if text else None


def remove_environment(folder: Path) -> None:
    """Delete an environment that this program made, if there is one; another is not touched."""
    mark = folder / MADE
    if not os.path.lexists(str(folder)):
        return
    if folder.is_symlink() or not folder.is_dir() or (any(folder.iterdir()) and not mark.is_file()):
        raise RunError(f"{folder}: is there already, and is not PoseQuant's. Choose another `folder` for this device.")
    # The mark goes last: what an interruption leaves is still ours.
    for path in sorted(folder.iterdir(), key=lambda path: path == mark):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        else:
            path.unlink()
    folder.rmdir()


def remove(folder: Path) -> None:
    """Delete from a folder all that is PoseQuant's, unless jobs there are not finished."""
    jobs = folder / "jobs"
    if unfinished := names_in(jobs):
        raise RunError(f"{jobs}: has jobs that are not finished: {', '.join(unfinished)}.")
    with contextlib.suppress(RunError):  # somebody else's environment
        remove_environment(folder / "venv")
    with contextlib.suppress(OSError):
        jobs.rmdir()
    Path(__file__).unlink()
    with contextlib.suppress(OSError):  # other things are in it
        folder.rmdir()


def names_in(folder: Path) -> list[str]:
    """Return the names of what is in a folder, in order; nothing where there is no folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--package", type=Path, help="the networks: an archive (.zip), or a folder")
    parser.add_argument("--people", type=Path, help="the crops (.npz)")
    parser.add_argument("--out", type=Path, help="the result to write (.zip)")
    parser.add_argument("--facts", action="store_true", help="only say what this machine is, as JSON")
    parser.add_argument("--rows", nargs="+", help="names of the networks to run (default: all of the package)")
    parser.add_argument("--limit", type=int, help="how many of the people to take (default: all)")
    parser.add_argument("--threads", type=int, default=0, help="how many threads at most (default: as many as cores)")
    parser.add_argument("--no-latency", action="store_true", help="measure no time")
    parser.add_argument("--no-outputs", action="store_true", help="give no outputs")
    parser.add_argument("--layers", type=int, default=0, help="for how many people to give the values of every blob")
    parser.add_argument("--rounds", type=int, default=30, help="rounds to time (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=300, help="after which no rounds are added (default: %(default)s)"
    )
    parser.add_argument(
        "--cool", type=float, default=60, help="wait so many seconds between rounds at most (default: %(default)s)"
    )
    ssh = parser.add_argument_group("for PoseQuant, which calls them over ssh")
    ssh.add_argument("--install", type=Path, metavar="FOLDER", help="make a Python environment")
    ssh.add_argument("--requirements", nargs="+", default=["numpy", "ncnn"], help="what is installed there")
    ssh.add_argument("--remove", type=Path, metavar="FOLDER", help="delete what is PoseQuant's there")
    ssh.add_argument("--receive", type=Path, metavar="FOLDER", help="take the files of a job in")
    ssh.add_argument("--attached", type=Path, metavar="FOLDER", help="do the job there, and send its pieces")
    ssh.add_argument("--job", default="", help="name of the job, which others are told")
    ssh.add_argument("--wait", type=float, default=3600, help="for another run's end (default: %(default)s s)")
    arguments = parser.parse_args()
    for option in ("package", "people", "out", "install", "remove", "receive", "attached"):
        if path := getattr(arguments, option):
            setattr(arguments, option, path.expanduser())
    from_here = arguments.facts or arguments.install or arguments.remove or arguments.receive
    needed = ["package", "people"] + ([] if arguments.attached else ["out"])
    if not from_here and not all(getattr(arguments, option) for option in needed):
        parser.error("give --package, --people and --out")
    return arguments


def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    if platform.system() not in ("Linux", "Android"):
        sys.exit(f"error: this runner needs Linux, and this is {platform.system() or 'another system'}.")
    # What libraries print must not come between what is sent.
    stdout = os.fdopen(os.dup(1), "wb")
    if arguments.receive or arguments.attached or arguments.install:
        os.dup2(2, 1)
        stdout.write(GREETING.encode() + b"\n")
        stdout.flush()
    stdin = sys.stdin.buffer
    try:
        if arguments.facts:
            print(json.dumps(facts(), indent=1))
        elif arguments.install:
            install(arguments)
        elif arguments.remove:
            remove(arguments.remove)
        elif arguments.receive:
            receive(arguments, stdin, stdout)
        elif arguments.attached:
            attached(arguments, stdin, stdout)
        else:
            by_hand(arguments)
    except RunError as error:
        sys.exit(f"error: {error}")
    except ImportError as error:
        sys.exit(f"error: {error}. Install what is missing: python -m pip install numpy ncnn")
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
