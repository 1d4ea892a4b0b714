"""What a script says of its own time, where the environment asks for it."""

import builtins
import json
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VARIABLE = "POSEQUANT_PROFILE"
"""Names a folder; every script that ends well or badly leaves a record of its time there."""


@contextmanager
def recorded(script: str, start: float) -> Iterator[None]:
    """Write how long a script took, and for what, into the folder that the environment names; else do nothing.

    `start` is when its process was `started`, which may be another than that of this block.

    The record is JSON: the `script`'s name; `start` and `end`, seconds since the epoch; of the seconds between them
    `start_up`, until this block is entered, and `imports` in it; `cpu`, seconds of all its threads and processes.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        yield
        return
    entered = time.time()
    start = min(start, entered)
    with _timed_imports() as imports:
        try:
            yield
        finally:
            record = {
                "script": script,
                "start": start,
                "end": time.time(),
                "start_up": entered - start,
                "imports": imports.seconds,
                "cpu": cpu_seconds(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN),
            }
            Path(folder, f"{script}-{os.getpid()}.json").write_text(json.dumps(record))


def cpu_seconds(*whose: int) -> float:
    """Return what this process (`resource.RUSAGE_SELF`), or those that it waited for (`RUSAGE_CHILDREN`), computed."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, whose))


class _Imports(threading.local):
    """How deep in imports a thread is; how long the outermost ones took in all."""

    depth = 0
    seconds = 0.0


@contextmanager
def _timed_imports() -> Iterator[_Imports]:
    imports, original = _Imports(), builtins.__import__

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        imports.depth += 1
        try:
            return original(*args, **kwargs)
        finally:
            imports.depth -= 1
            if imports.depth == 0:
                imports.seconds += time.perf_counter() - start

    builtins.__import__ = timed
    try:
        yield imports
    finally:
        builtins.__import__ = original


def started() -> float:
    """Return when this process was started, in seconds since the epoch; now, where the system does not tell."""
    try:
        # Field 22 of proc_pid_stat(5), counted behind the name in brackets, which may hold anything.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return time.time()
    return time.time() - (up - ticks / os.sysconf("SC_CLK_TCK"))
