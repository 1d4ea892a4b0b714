"""The one exception that users are meant to read, and how a script shows it."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from posequant.base.profiling import recorded


class InputError(Exception):
    """Something the user gave is missing, corrupt or inconsistent.

    The message names the file or setting, says what is wrong with it and what to do.
    """


def reports_input_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Let a script's `main` end on an `InputError` with its message and exit status 1, without a traceback.

    Where the environment asks for it, the script says how long it took (`profiling.recorded`).
    """

    @functools.wraps(main)
    def guarded() -> None:
        try:
            with recorded(Path(sys.argv[0]).stem):
                main()
        except InputError as error:
            sys.exit(f"error: {error}")

    return guarded
