"""Taking a file or a folder out of a zip archive."""

import lzma
import shutil
import stat
import struct
import zlib
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.base.files import free_space, require_file

# How many times the size of an archive its content may be. Text that repeats much, as annotations do, comes to 20.
_LARGEST_RATIO = 100
# Bytes that no archive is refused for.
_HARMLESS = 10**8
_DAMAGED = (BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, NotImplementedError, ValueError)
_ENCRYPTED = 1  # the flag of an entry
_BY_HAND = "Unpack it by hand, and name what came out in its place."


def unpack(archive: Path, member: str, target: Path) -> None:
    """Take a file or a folder out of a zip archive and show the progress.

    Args:
        archive: zip file.
        member: path inside the archive, of a file or a folder; empty for all of it.
        target: the file or folder to write; it must not exist.

    Raises:
        InputError: the archive is missing, damaged, truncated or encrypted, has no such member, holds links or paths
            that lead out of it, two files of one name, or more than the disk or than an archive of its size should; or
            a file cannot be written. What was written by then is left for the caller to remove.
    """
    require_file(archive)
    try:
        with ZipFile(archive) as content:
            files = _files_of(content, archive, member)
            size = sum(entry.file_size for entry in files.values())
            _require_room(archive, size, target)
            with tqdm(
                desc=f"unpacking {archive.name}",
                total=size,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                mininterval=2,
            ) as bar:
                for inner, entry in files.items():
                    path = target / inner
                    path.parent.mkdir(parents=True, exist_ok=True)
                    # Reading an entry to its end checks its CRC-32.
                    with content.open(entry) as packed, path.open("wb") as unpacked:
                        shutil.copyfileobj(packed, unpacked, 1 << 20)
                    bar.update(entry.file_size)
    except _DAMAGED as error:
        raise InputError(
            f"{archive}: the archive is damaged or truncated ({error}). Delete it and run again."
        ) from error
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked to {target} ({error.strerror or error})") from error


def _files_of(content: ZipFile, archive: Path, member: str) -> dict[PurePosixPath, ZipInfo]:
    """Return the entries to unpack, each by its path below the target."""
    wanted = PurePosixPath(member)
    found = {}
    for entry in content.infolist():
        path = PurePosixPath(entry.filename)
        if (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in entry.filename
            or stat.S_ISLNK(entry.external_attr >> 16)
        ):
            raise InputError(f"{archive}: '{entry.filename}' leads out of the archive; nothing is unpacked. Delete it.")
        if path.is_relative_to(wanted) and not entry.is_dir():
            inner = path.relative_to(wanted)
            if inner in found:
                raise InputError(f"{archive}: holds two files of the name '{path}'. {_BY_HAND}")
            if entry.flag_bits & _ENCRYPTED:
                raise InputError(f"{archive}: '{path}' is encrypted. {_BY_HAND}")
            found[inner] = entry
    if not found:
        known = sorted({path.parts[0] for path in map(PurePosixPath, content.namelist()) if path.parts})
        raise InputError(f"{archive}: has no '{member}'; at its top are {', '.join(known[:10])}")
    if clashing := found.keys() & {folder for inner in found for folder in inner.parents if len(found) > 1}:
        raise InputError(f"{archive}: '{wanted / min(clashing)}' is a file and a folder. {_BY_HAND}")
    return found


def _require_room(archive: Path, size: int, target: Path) -> None:
    """Raise `InputError` if files of `size` bytes are more than the archive should hold, or than there is room."""
    packed = archive.stat().st_size
    if size > max(_LARGEST_RATIO * packed, _HARMLESS):
        raise InputError(
            f"{archive}: its {packed} bytes would unfold to {size / 1e9:.3g} GB, {size / packed:.0f} times as much; "
            f"nothing is unpacked. If it is what it should be: {_BY_HAND[0].lower()}{_BY_HAND[1:]}"
        )
    free = free_space(target)
    if size > free:
        raise InputError(f"{archive}: unfolds to {size / 1e9:.3g} GB, but {target.parent} has {free / 1e9:.3g} GB free")
