"""The files of calibration_crops.py: crops as .npy files, `list.txt` with their names, `people.npz` with the people."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import require_file

CROPS = 8
"""How many crops each conversion is verified on."""

_REMAKE = "Make the crops again: scripts/calibration_crops.py."
# numpy parses the header of a .npy with Python's ast, which in Python 3.11 fails at times in several threads at once.
_LOADING = Lock()


@dataclass(frozen=True)
class People:
    """The N people whose crops they are, in pixels of their images.

    Attributes:
        image_ids: COCO ids of their images, int64 (N,).
        bboxes: their boxes, float32 (N, 4); left, top, right, bottom.
        centers: centres of the crops, float32 (N, 2).
        scales: widths and heights of the crops, float32 (N, 2).
        keypoints: float32 (N, K, 2).
        visible: which keypoints are annotated, bool (N, K).
        areas: annotated areas of the people, float32 (N,), in square pixels.
    """

    image_ids: NDArray[np.int64]
    bboxes: NDArray[np.float32]
    centers: NDArray[np.float32]
    scales: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    visible: NDArray[np.bool_]
    areas: NDArray[np.float32]

    def __getitem__(self, which: slice | NDArray[np.int64]) -> "People":
        """Return some of them."""
        return People(**{name: values[which] for name, values in vars(self).items()})

    def save(self, folder: Path) -> None:
        """Write them beside the crops; the same people give the same bytes."""
        np.savez(folder / "people.npz", allow_pickle=False, **vars(self))

    @classmethod
    def load(cls, folder: Path) -> "People":
        """Read those of the crops in a folder.

        Raises:
            InputError: the file is missing or damaged, or has not one row for each crop.
        """
        path = require_file(folder / "people.npz", _REMAKE)
        try:
            with np.load(path, allow_pickle=False) as file:
                people = cls(**{name: file[name] for name in cls.__annotations__})
        except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
            raise InputError(f"{path}: not the people of crops ({error}). {_REMAKE}") from error
        count, keypoints = len(crop_paths(folder)), people.visible.shape[-1] if people.visible.ndim else 0
        rows = {
            "image_ids": (),
            "bboxes": (4,),
            "centers": (2,),
            "scales": (2,),
            "keypoints": (keypoints, 2),
            "visible": (keypoints,),
            "areas": (),
        }
        for name, row in rows.items():
            if (shape := getattr(people, name).shape) != (count, *row):
                raise InputError(f"{path}: {name} has the shape {shape} for {count} crops. {_REMAKE}")
        return people


def load_crops(folder: Path, limit: int | None = CROPS) -> NDArray[np.float32]:
    """Return the first `limit` crops of a folder, all where it is None, float32 (N, 3, height, width).

    Raises:
        InputError: as `crop_paths` and `read_crop`; all crops must have the shape of the first.
    """
    paths = crop_paths(folder)[:limit]
    first = read_crop(paths[0])
    return np.stack([first, *(read_crop(path, first.shape) for path in paths[1:])])


def crop_paths(folder: Path) -> list[Path]:
    """Return the crops that `list.txt` in `folder` names, one a line, relative to the folder.

    Raises:
        InputError: if the list or a file in it is missing or empty.
    """
    listing = require_file(folder / "list.txt", _REMAKE)
    paths = [folder / line.strip() for line in listing.read_text().splitlines() if line.strip()]
    if not paths:
        raise InputError(f"{listing}: the list is empty. {_REMAKE}")
    return [require_file(path, _REMAKE) for path in paths]


def read_crop(path: Path, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    """Return one crop as the network takes it, float32 (3, height, width), all finite; safe in several threads.

    Args:
        path: the `.npy` file.
        shape: of the other crops, which this one must have too; None for the first.

    Raises:
        InputError: naming the file, if it is not such a crop, not in C order, or not of `shape`.
    """
    try:
        with _LOADING:
            crop = np.load(require_file(path, _REMAKE), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a .npy file ({error}). {_REMAKE}") from error
    if not isinstance(crop, np.ndarray) or crop.dtype != np.float32 or crop.ndim != 3 or not crop.flags.c_contiguous:
        raise InputError(f"{path}: not a float32 tensor (3, height, width) in C order. {_REMAKE}")
    if shape and crop.shape != shape:
        raise InputError(f"{path}: the crop has the shape {crop.shape}, but the first one has {shape}. {_REMAKE}")
    if crop.shape[0] != 3:
        raise InputError(f"{path}: the crop has the shape {crop.shape}, not (3, height, width). {_REMAKE}")
    if not np.isfinite(crop).all():
        raise InputError(f"{path}: the crop holds NaN or infinity. {_REMAKE}")
    checked: NDArray[np.float32] = crop
    return checked
