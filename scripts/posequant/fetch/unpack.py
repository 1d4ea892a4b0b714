"""Taking a file or a folder out of a zip archive."""

import shutil
import stat
import zlib
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.base.files import require_file


def unpack(archive: Path, member: str, target: Path) -> None:
    """Take a file or a folder out of a zip archive and show the progress.

    Args:
        archive: zip file.
        member: path inside the archive, of a file or a folder; empty for all of it.
        target: the file or folder to write; it must not exist.

    Raises:
        InputError: the archive is missing, damaged or truncated, has no such member, or holds links or paths that lead
            out of it. What was written by then is left for the caller to remove.
    """
    require_file(archive)
    try:
        with ZipFile(archive) as content:
            files = _files_of(content, archive, member)
            size = sum(entry.file_size for entry in files.values())
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
    except (BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise InputError(
            f"{archive}: the archive is damaged or truncated ({error}). Delete it and run again."
        ) from error


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
            found[path.relative_to(wanted)] = entry
    if not found:
        known = sorted({PurePosixPath(name).parts[0] for name in content.namelist()})
        raise InputError(f"{archive}: has no '{member}'; at its top are {', '.join(known[:10])}")
    return found
