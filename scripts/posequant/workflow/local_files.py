"""The user's own files: where they are, and whether they changed."""

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from posequant.base.errors import InputError
from posequant.base.openmmlab import find_config

# Files by these names in a folder of images are taken for images.
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_file(key: str, source: str, beside: Path) -> Path:
    """Return where a file or folder of the user's lies.

    Args:
        key: the key of the configuration that names it. Its last step is the kind: `images` are a folder, a `config`
            may be the name of one that mmpose ships, all others are files.
        source: what the key says: a path.
        beside: a folder in which a relative path is looked for that the working folder lacks.

    Raises:
        InputError: it is not there, of another kind, or may not be read. The message begins with the key.
    """
    kind = key.rpartition(".")[2]
    path = next((path for path in (Path(source), beside / source) if path.exists()), None)
    if path is None and kind == "config":
        try:
            return find_config(Path(source))
        except InputError as error:
            raise InputError(f"{key}: {error}") from error
    if path is None:
        what = "folder" if kind == "images" else "file"
        raise InputError(f"{key}: {source}: no such {what}. Relative paths start at {Path.cwd()}.")
    if path.is_dir() != (kind == "images"):
        raise InputError(f"{key}: {source}: this is {'not ' if kind == 'images' else ''}a folder.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{key}: {source}: it may not be read; see its permissions.")
    return path


@cache
def fingerprint(folder: Path, names: frozenset[str] | None = None) -> str:
    """Return a hash, 16 hex digits, of the names, sizes and modification times of images.

    A file that is overwritten leaves the time of its folder alone, so that does not tell. Taken once in a process.

    Args:
        folder: the folder of the images.
        names: their paths in it; by default all files in it, at any depth, whose names end as images' do.
    """
    digest = hashlib.sha256()
    for path in sorted({folder / name for name in names} if names is not None else _images(folder)):
        try:
            status = path.stat()
        except OSError:
            said = "missing"
        else:
            said = f"{status.st_size} {status.st_mtime_ns}"
        digest.update(f"{path.relative_to(folder)}\0{said}\0".encode())
    return digest.hexdigest()[:16]


def _images(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if name.lower().endswith(_IMAGES))
