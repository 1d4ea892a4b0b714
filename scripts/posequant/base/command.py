"""What every script's `main` runs in."""

import functools
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path

from posequant.base.errors import InputError
from posequant.base.files import DISK_IS_FULL, full_disk
from posequant.base.profiling import recorded, started
from posequant.base.supervision import MORE_MEMORY, limit_of_memory, noted, supervised


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Return what runs a script's `main`.

    An `InputError`, a full disk and a lack of memory end it with a message and exit status 1, without a traceback. A
    script that is run by itself works in a process of its own: where a native library crashes, or the system kills it,
    there is a message, too (`supervision.supervised`). Where the environment asks for it, the script records how long
    it took (`profiling.recorded`).
    """

    @functools.wraps(main)
    def guarded() -> None:
        alone = main.__module__ == "__main__"
        start = started()

        def work() -> None:
            try:
                with recorded(Path(sys.argv[0]).stem, start), _few_collections(alone):
                    main()
            except InputError as error:
                sys.exit(f"error: {error}")
            except (MemoryError, OSError, BrokenExecutor) as error:
                if message := lacking(error):
                    sys.exit(f"error: {message}")
                raise

        supervised(work) if alone else work()

    return guarded


def lacking(error: BaseException) -> str:
    """Return what the system lacks, where an error comes of that, and what to do; else an empty text."""
    what = f" while it {noted()}" if noted() else ""
    if isinstance(error, MemoryError):
        return f"there is not enough memory{what}: {limit_of_memory()}. {MORE_MEMORY}"
    if isinstance(error, BrokenExecutor):
        return (
            f"a worker process was killed{what}, probably for lack of memory. Run fewer jobs at a time (-c), and run "
            "the same command again."
        )
    if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
        place = error.filename or tempfile.gettempdir()
        return f"{place}: cannot be written: {full_disk(Path(place))}"
    return ""


@contextmanager
def _few_collections(alone: bool) -> Iterator[None]:
    """Let Python look for cycles of objects seldom, and not at its end, where a script is `alone` in its process.

    It would walk through all that large packages define again and again while they are imported, and once more at the
    end: 1.5 s of the 4.7 s that it takes to load a network of mmpose.
    """
    if not alone:
        yield
        return
    gc.set_threshold(100_000, 10, 10)
    try:
        yield
    finally:
        gc.freeze()
