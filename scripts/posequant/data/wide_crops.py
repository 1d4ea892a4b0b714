"""Crops with a margin, and the crops that are cut from them at random: shifted, scaled, turned and mirrored."""

import math
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from posequant import __version__
from posequant.base.errors import InputError
from posequant.base.files import read_json, sha256, write_json
from posequant.base.model_spec import ModelSpec
from posequant.data.calibration_set import load_people
from posequant.data.crops import Cropper, Floats
from posequant.data.dataset import ImageFile, read_image, require_images

SHIFT = 0.1
"""How far a crop is shifted at most, as a share of its width and of its height."""
SCALES = (0.75, 1.3)
"""How large the frame of a crop may be, beside that of the person."""
DEGREES = 30.0
"""How far a crop is turned at most."""
_TURNED = 0.6
_MIRRORED = 0.5
_REMAKE = "Delete it and run again."


def make_wide_crops(model: Path, people: Path, images: Path, folder: Path, threads: int = 1) -> dict[str, Any]:
    """Write the crop of each chosen person with a margin, for `AugmentedCrops`. The margin has all that these can see.

    Args:
        model: the model description, `model.json`.
        people: who was chosen, a file of the form of `calibration.json`.
        images: folder of the images.
        folder: where to write; it is created. `crops.npy` holds the crops as `Cropper.warp` makes them, uint8
            (N, height, width, 3) in BGR, in the order of the people; `crops.json` says what they are of.
        threads: how many images are read at a time; the files do not depend on it.

    Returns:
        The content of `crops.json`.

    Raises:
        InputError: an input is missing or damaged.
    """
    cv2.setNumThreads(1)  # the threads are the caller's
    spec, chosen = ModelSpec.load(model), load_people(people)
    require_images(images, [person.image for person in chosen])
    cropper, (across, along) = Cropper(spec), margin(spec)
    centers, extents = cropper.frame(np.stack([person.bbox for person in chosen]))
    places_in: dict[ImageFile, list[int]] = defaultdict(list)
    for place, person in enumerate(chosen):
        places_in[person.image].append(place)
    folder.mkdir(parents=True)
    shape = len(chosen), *_sides(spec), 3
    stored = open_memmap(folder / "crops.npy", mode="w+", dtype=np.uint8, shape=shape)

    def cut(image: ImageFile) -> int:
        pixels = read_image(images, image)
        for place in places_in[image]:
            stored[place] = cropper.warp(pixels, centers[place], extents[place], (across, along))
        return len(places_in[image])

    with (
        tqdm(total=len(chosen), desc="cropping", unit="person", mininterval=2) as progress,
        ThreadPoolExecutor(threads) as executor,
    ):
        for count in executor.map(cut, places_in):
            progress.update(count)
    stored.flush()
    record = {
        "posequant": __version__,
        "people": len(chosen),
        "images": len(places_in),
        "geometry": _geometry(spec),
        "made_from": {people.name: sha256(people)},
        "sha256": {"crops.npy": sha256(folder / "crops.npy")},
    }
    write_json(folder / "crops.json", record)
    return record


class AugmentedCrops:
    """Crops of people as the network takes them, each time others of the same people.

    Attributes:
        sha256: hex SHA-256 of the crops that they are cut from.
    """

    def __init__(self, wide: NDArray[np.uint8], spec: ModelSpec, digest: str, threads: int = 1) -> None:
        """Take what `make_wide_crops` made; see `open`."""
        self.sha256 = digest
        self._wide, self._threads = wide, threads
        self._cropper, self._size = Cropper(spec), spec.input_size
        self._margin = margin(spec)
        self._center = np.subtract(self._size, 1 if spec.use_udp else 0) / 2

    @classmethod
    def open(cls, folder: Path, spec: ModelSpec, threads: int = 1) -> "AugmentedCrops":
        """Open the crops that `make_wide_crops` wrote. They are read from the disk when they are asked for.

        Args:
            folder: of the crops.
            spec: the description of the model that they were made for.
            threads: how many crops of a batch are cut at a time; no batch depends on it.

        Raises:
            InputError: a file is missing or damaged, or the crops were made in another way.
        """
        record = read_json(folder / "crops.json")
        if not isinstance(record, dict) or record.get("geometry") != _geometry(spec):
            raise InputError(f"{folder}: holds crops that were made in another way. {_REMAKE}")
        path = folder / "crops.npy"
        if (digest := sha256(path)) != record.get("sha256", {}).get(path.name):
            raise InputError(f"{path}: changed after it was made: its SHA-256 is {digest}. {_REMAKE}")
        return cls(np.load(path, mmap_mode="r"), spec, digest, threads)

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self._wide)

    def batch(self, generator: np.random.Generator, count: int) -> Floats:
        """Return crops of people chosen at random, in random views: the network's input, float32 (count, 3, H, W).

        Nobody is in a batch twice that is no larger than the number of people. The crops follow from the generator.
        """
        people = generator.choice(len(self), count, replace=count > len(self))
        return self._cropper.normalise(self.cut(people, self.views(generator, count)))

    def views(self, generator: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Return random views of people, float64 (count, 2, 3).

        Half of them are mirrored. Three fifths are shifted up to `SHIFT`, with a frame `SCALES` times as large, and
        turned up to `DEGREES`, all uniformly. The others are shifted by whole pixels only: their pixels are no
        smoother than those of the crops that are evaluated.

        Returns:
            Affine matrices that take the pixels of a crop to where they are in the crop of `Cropper.cut`.
        """
        shifts = generator.uniform(-SHIFT, SHIFT, (count, 2)) * self._size
        scales = generator.uniform(*SCALES, count)
        angles = np.radians(generator.uniform(-DEGREES, DEGREES, count))
        mirrored = np.where(generator.random(count) < _MIRRORED, -1.0, 1.0)
        turned = generator.random(count) < _TURNED
        shifts = np.where(turned[:, np.newaxis], shifts, np.rint(shifts))
        scales, angles = np.where(turned, scales, 1.0), np.where(turned, angles, 0.0)
        cosines, sines = scales * np.cos(angles), scales * np.sin(angles)
        linear = np.stack([mirrored * cosines, -sines, mirrored * sines, cosines], axis=1).reshape(count, 2, 2)
        # About the middle of the frame, which is on a pixel of the crop or half a pixel off, as the codec has it.
        offsets = self._center + shifts - linear @ self._center
        return np.concatenate([linear, offsets[..., np.newaxis]], axis=2)

    def cut(self, people: NDArray[np.int64], views: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return crops of people in given views, uint8 (N, H, W, 3) in BGR, black beyond the border of the image.

        Args:
            people: their places, int64 (N,).
            views: as `views` returns them, (N, 2, 3).
        """

        def one(person: int, view: NDArray[np.float64]) -> NDArray[np.uint8]:
            matrix = view.copy()
            matrix[:, 2] += self._margin
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            return np.asarray(cv2.warpAffine(self._wide[person], matrix, self._size, flags=flags), np.uint8)

        with ThreadPoolExecutor(self._threads) as executor:
            return np.stack(list(executor.map(one, people, views)))


def margin(spec: ModelSpec) -> tuple[int, int]:
    """Return how many pixels wide crops have beside those of a model: on the left and right, and above and below."""
    width, height = spec.input_size
    return _beyond(width, height), _beyond(height, width)


def _beyond(side: int, other: int) -> int:
    """Return how far beyond its `side` a crop can see, whose `other` side is so long, in pixels."""
    widest = min(math.radians(DEGREES), math.atan2(other, side))
    seen = max(SCALES) * (side * math.cos(widest) + other * math.sin(widest)) + 2 * SHIFT * side
    # One pixel more: the middle of a crop may be half a pixel off, and colours are taken from between two pixels.
    return math.ceil((seen - side) / 2) + 1


def _sides(spec: ModelSpec) -> tuple[int, int]:
    """Return the height and the width of the wide crops of a model."""
    (width, height), (across, along) = spec.input_size, margin(spec)
    return height + 2 * along, width + 2 * across


def _geometry(spec: ModelSpec) -> dict[str, Any]:
    """Return all of a model that decides what its wide crops look like."""
    return {
        "input_size": list(spec.input_size),
        "margin": list(margin(spec)),
        "padding": spec.padding,
        "use_udp": spec.use_udp,
    }
