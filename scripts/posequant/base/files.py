"""Files that appear whole or not at all, and their identity."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posequant.base.errors import InputError
from posequant.base.supervision import noted_as

# No space left on the device, quota exceeded, file larger than the process may write.
DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Less space than this on a disk is none: libraries do not say why they fail to write, in bytes.
_NO_SPACE = 1 << 20


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to; rename it to `target` when the block ends well.

    The path does not exist yet: the block creates a file or a folder there. An existing `target` is replaced.
    When the block raises, nothing is left behind and `target` is as it was; an `InputError` names `target` where it
    would name what was written to. When the machine stops, a file is the old one or the new one, with all of its
    content: it is on the disk before it gets its name. A folder that is replaced is moved aside first, for a moment,
    into the hidden folder beside it that is worked in.

    Raises:
        InputError: the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    # The suffix is kept, as many writers choose their format by it.
    draft = workplace / target.name
    try:
        with named_as(workplace, target.parent):
            yield draft
        _write_through(draft)
        if target.is_dir():
            _replace_folder(target, draft, aside=workplace / "replaced")
        else:
            draft.replace(target)
        _sync(target.parent)
    except InputError:
        raise
    except Exception as error:
        # Libraries raise errors of their own where a file cannot be written, most without the reason.
        number = error.errno if isinstance(error, OSError) else None
        if number in DISK_IS_FULL or free_space(target) < _NO_SPACE:
            raise InputError(f"{target}: cannot be written: {full_disk(target)}") from error
        raise
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def full_disk(path: Path) -> str:
    """Return in words that there is no space for `path`, and what to do."""
    return (
        f"the disk, a quota or a limit of file sizes is full ({free_space(path) / 1e6:,.0f} MB are free there). Make "
        "space and run the same command again: it goes on from here."
    )


def free_space(path: Path) -> int:
    """Return how many bytes are free on the disk of a path that need not be there yet."""
    return shutil.disk_usage(next(place for place in (path, *path.absolute().parents) if place.is_dir())).free


@contextmanager
def named_as(path: Path | str, name: Path | str) -> Iterator[None]:
    """Let an `InputError` or a crash of the block say `name`, not `path`, which is gone when the user reads it."""
    try:
        with noted_as(path, name):
            yield
    except InputError as error:
        if str(path) not in str(error):
            raise
        raise InputError(str(error).replace(str(path), str(name))) from error


def _replace_folder(target: Path, draft: Path, aside: Path) -> None:
    """Rename `draft` to `target`, a folder, which no file system does in one step."""
    try:
        target.rename(aside)
        draft.rename(target)
    except BaseException:  # an interrupt, too: what is aside is deleted next
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise


def _write_through(path: Path) -> None:
    """Have the content of a file, or of a folder and all that is in it, on the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            _write_through(inner)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_file(path: Path, hint: str = "") -> Path:
    """Return `path` if it is a file with content; otherwise raise `InputError` that names it, followed by `hint`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. {hint}".rstrip())
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty. {hint}".rstrip())
    return path


def sha256(*paths: Path) -> str:
    """Return the hex SHA-256 of the contents of `paths`, read in the given order."""
    digest = hashlib.sha256()
    for path in paths:
        with require_file(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_json(path: Path, advice: str = "Delete it and run again.") -> Any:
    """Return the parsed JSON of `path`; `InputError`, which ends in `advice`, if it is missing or not JSON.

    Brackets in many hundreds of each other are refused, too, and whole numbers of thousands of digits.
    """
    try:
        return json.loads(require_file(path).read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}). {advice}") from error


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` as indented JSON with a stable key order of its own, whole or not at all."""
    with whole(path) as draft:
        draft.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
