"""What a finished study needs no more is removed; all that it says stays."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from posequant.base.errors import InputError
from posequant.base.files import read_json, write_json


def require_finished(page: Path, made_of: Sequence[Path]) -> None:
    """Check that a study is finished.

    Args:
        page: of the study.
        made_of: files that it is made of; they are not newer.

    Raises:
        InputError: a file is missing, or the page is older than another.
    """
    go_on = f"Nothing was removed. Finish the study first: snakemake -c all {page}"
    for path in (page, *made_of):
        if not path.is_file():
            raise InputError(f"{path}: not there yet: the study is not finished. {go_on}")
        if path.stat().st_mtime_ns > page.stat().st_mtime_ns:
            raise InputError(f"{page}: older than {path}: the study is not finished. {go_on}")


def prune_crops(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the kept crops in folders of `keep_crops`, each ready to be removed.

    The folder stays and says that nothing is kept, as where crops are too large from the start. Every prediction cuts
    them out of the images anew, bit for bit the same. Were the folder removed, to make it again for one row would
    rerun all others.
    """
    for folder in sorted(folders):
        crops = folder / "crops.npy"
        if crops.is_file():
            write_json(folder / "crops.json", {**read_json(folder / "crops.json"), "kept": False})
            yield crops


def remove(paths: Iterable[Path]) -> tuple[int, int]:
    """Remove files and return how many there were, and how many bytes they took."""
    count = total = 0
    for path in paths:
        size = path.stat().st_size
        path.unlink()
        count, total = count + 1, total + size
    return count, total
