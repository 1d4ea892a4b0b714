"""What a finished study needs no more is removed; all that it says stays."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from posequant.base.files import read_json, write_json


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
