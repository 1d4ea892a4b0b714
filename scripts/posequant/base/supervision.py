"""A script's work in a process of its own, so that somebody is left to say how it died."""

import ctypes
import faulthandler
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MORE_MEMORY = (
    "Run fewer jobs at a time (-c), or give the step more (--set-resources STEP:mem_mb=...), and run the same command "
    "again."
)
"""What to do where memory lacks."""

# What the process is doing, for whoever has to say how it died: text, ended by a zero byte. The memory is shared with
# the process that watches.
_note = mmap.mmap(-1, 1024)
# What notes say in place of a path.
_names: dict[str, str] = {}
# prctl(2): a signal to this process when the one that made it ends.
_PR_SET_PDEATHSIG = 1
# So long may a process take to clean up when it is asked to end, in seconds.
_GRACE = 5
_CRASHES = {
    signal.SIGSEGV: "read memory that is not its own",
    signal.SIGBUS: "read memory that is not there",
    signal.SIGILL: "ran an instruction that this processor lacks",
    signal.SIGFPE: "divided by zero",
    signal.SIGABRT: "gave up",
}


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Note what the block does, such as `loads FILE`; it is told if a native library crashes there."""
    before = noted()
    note(what)
    try:
        yield
    finally:
        note(before)


def note(what: str) -> None:
    """Note what is done from now on."""
    for path, name in _names.items():
        what = what.replace(path, name)
    text = what.encode(errors="replace")[: len(_note) - 1] + b"\0"
    _note[: len(text)] = text


@contextmanager
def noted_as(path: Path | str, name: Path | str) -> Iterator[None]:
    """Let notes of the block say `name` where they say `path`."""
    _names[str(path)] = str(name)
    try:
        yield
    finally:
        del _names[str(path)]


def noted() -> str:
    """Return what was noted last."""
    return _note[:].partition(b"\0")[0].decode(errors="replace")


def supervised(work: Callable[[], None]) -> None:
    """Do `work` in a process of its own, and end this one as that ends.

    It is forked before anything large is imported and before there are threads, which takes a millisecond. Where a
    signal ends it, this process says so on standard error, with what was noted and what to do, and ends with status 1.
    SIGTERM is passed on and gives the work some seconds to clean up. The work ends when this process is killed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    watcher = os.getpid()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != watcher:
            os._exit(1)
        signal.signal(signal.SIGTERM, _end)
        # Where a native library crashes, the log says in which call of it.
        faulthandler.enable()
        work()
        return
    # Ctrl-C reaches both: the work ends by it, and then this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))

    def pass_on(number: int, _: object) -> None:
        os.kill(child, number)
        signal.alarm(_GRACE)

    signal.signal(signal.SIGTERM, pass_on)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        print(f"error: {describe_death(-code, used.ru_maxrss * 1024)}", file=sys.stderr, flush=True)
        code = 1
    os._exit(code)


def crash_of(work: Callable[[], object]) -> str:
    """Do `work` in a process of its own and return how a crash ended it, with what was noted; empty where none did.

    What the work returns or raises is lost: to have that, do it again. For libraries that may crash on a file of the
    user's.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = noted()
    child = os.fork()
    if child == 0:
        # The caller says what happened.
        faulthandler.disable()
        for number in _CRASHES:
            signal.signal(number, signal.SIG_DFL)
        with suppress(BaseException):
            work()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    last = noted()
    note(before)
    return f"{_crash(-code)} while it {last}" if -code in _CRASHES else ""


def _crash(number: int) -> str:
    did = f", which {_CRASHES[signal.Signals(number)]}" if number in _CRASHES else ""
    return f"a native library crashed ({signal.Signals(number).name}{did})"


def _end(number: int, _: object) -> None:
    # Once: a second signal would interrupt the cleaning up.
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def describe_death(number: int, peak: int) -> str:
    """Return how a process died that a signal ended, and what to do.

    Args:
        number: of the signal.
        peak: the most memory that it had, in bytes.
    """
    name = signal.Signals(number).name
    what = noted()
    where = f" while it {what}" if what else ""
    if number == signal.SIGKILL:
        return (
            f"the step was killed ({name}){where}, probably for lack of memory: it had {peak / 1e9:.1f} GB of the "
            f"machine's {_machine_memory() / 1e9:.1f} GB, or of what the cluster gave it. {MORE_MEMORY}"
        )
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return f"the step was ended from outside ({name}){where}. Run the same command again: it goes on from here."
    return (
        f"{_crash(number)}{where}. The file that is named is damaged, or holds what the library "
        "cannot compute: make it again, or replace the layer. If neither helps, report it with this log."
    )


def limit_of_memory() -> str:
    """Return how much memory this process has and may have, in words."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    allowed = _machine_memory() if limit == resource.RLIM_INFINITY else min(limit, _machine_memory())
    return f"it had {used / 1e9:.1f} GB of {allowed / 1e9:.1f} GB"


def _machine_memory() -> int:
    """Return how much memory this machine has, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
