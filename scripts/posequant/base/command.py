"""What every script's `main` runs in."""

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from posequant.base.errors import InputError
from posequant.base.profiling import recorded


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Return what runs a script's `main`.

    An `InputError` ends it with its message and exit status 1, without a traceback. Where the environment asks for it,
    the script records how long it took (`profiling.recorded`).
    """

    @functools.wraps(main)
    def guarded() -> None:
        try:
            with recorded(Path(sys.argv[0]).stem), _few_collections(main.__module__ == "__main__"):
                main()
        except InputError as error:
            sys.exit(f"error: {error}")

    return guarded


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
