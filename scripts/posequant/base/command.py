"""What every script's `main` runs in."""

import functools
import gc
import sys
import tempfile
from argparse import ArgumentParser
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


def add_artifact_option(parser: ArgumentParser) -> None:
    """Add `--artifact`: the files of a script's network, as `verify.as_made` takes them."""
    parser.add_argument(
        "--artifact",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="files of the network: mmpose config and checkpoint; .onnx; .xml and .bin; or .param and .bin. The record "
        "(.json) of their maker may follow; they are compared with it",
    )


def add_record_option(parser: ArgumentParser) -> None:
    """Add `--record`: what the maker of a script's network wrote down, for `verify.as_made`."""
    parser.add_argument(
        "--record", type=Path, help="what the network's maker recorded (JSON); its files are compared with that"
    )


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


def add_pair_options(parser: ArgumentParser) -> None:
    """Add the options of a step that compares an INT8 network with the float network of the same layers."""
    parser.add_argument("--param", type=Path, required=True, help="the float network's .param")
    parser.add_argument("--bin", type=Path, required=True, help="its .bin")
    parser.add_argument("--int8-param", type=Path, required=True, help="the INT8 network's .param")
    parser.add_argument("--int8-bin", type=Path, required=True, help="its .bin")
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--variant", required=True, help="name of the INT8 network")


def add_choice_options(parser: ArgumentParser) -> None:
    """Add the options of a step that chooses people of the training split, none of whom are evaluated on."""
    parser.add_argument(
        "--annotations", type=Path, required=True, help="COCO keypoint annotations of the training split"
    )
    parser.add_argument(
        "--evaluation-annotations", type=Path, required=True, help="those of the split that is evaluated on"
    )
    parser.add_argument("--out", type=Path, required=True, help="chosen people to write, .json")
