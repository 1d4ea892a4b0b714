"""What crops of people can see of their images, and crops of it in random views, without labels."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from posequant.data.calibration_set import Person, load_people
from posequant.data.crops import Cropper, Floats
from posequant.data.dataset import ImageFile, read_image, require_images

Pixels = NDArray[np.uint8]
Matrices = NDArray[np.float64]

SHIFT = 0.1
"""How far a crop is shifted at most, as a share of its width and of its height."""
SCALES = (0.75, 1.3)
"""How large the frame of a crop may be, beside that of the person."""
DEGREES = 30.0
"""How far a crop is turned at most."""
_TURNED = 0.6
_MIRRORED = 0.5
# Pixels that are kept for a pixel of the crop, along each side, where the image has more.
_FINEST = 2
_REMAKE = "Delete it and run again."


def make_wide_crops(model: Path, people: Path, images: Path, folder: Path, threads: int = 1) -> dict[str, Any]:
    """Write for each chosen person the part of the image that crops of the person can see, for `AugmentedCrops`.

    It is taken as it is, so that a crop is cut out of it as out of the image. Where the image has more than two pixels
    for a pixel of the crop, it is resized to two, of which every second is a pixel of the crop.

    Args:
        model: the model description, `model.json`.
        people: who was chosen, a file of the form of `calibration.json`.
        images: folder of the images.
        folder: where to write; it is created. `crops.npy` holds the parts of images, one after the other, uint8 in BGR.
            `frames.npz` holds their `shapes`, int64 (N, 2), heights and widths, and the `matrices`, float64 (N, 2, 3),
            that take the pixels of a crop to theirs. `crops.json` says what they are of.
        threads: how many images are read at a time; the files do not depend on it.

    Returns:
        The content of `crops.json`.

    Raises:
        InputError: an input is missing or damaged.
    """
    cv2.setNumThreads(1)  # the threads are the caller's
    spec, chosen = ModelSpec.load(model), load_people(people)
    require_images(images, [person.image for person in chosen])
    parts = list(_parts(spec, chosen))
    ends = np.cumsum([part.height * part.width * 3 for part in parts])
    places_in: dict[ImageFile, list[int]] = defaultdict(list)
    for place, person in enumerate(chosen):
        places_in[person.image].append(place)
    folder.mkdir(parents=True)
    stored = open_memmap(folder / "crops.npy", mode="w+", dtype=np.uint8, shape=(int(ends[-1]),))

    def store(image: ImageFile) -> int:
        pixels = read_image(images, image)
        for place in places_in[image]:
            part = parts[place].of(pixels).ravel()
            stored[ends[place] - len(part) : ends[place]] = part
        return len(places_in[image])

    with (
        tqdm(total=len(chosen), desc="cropping", unit="person", mininterval=2) as progress,
        ThreadPoolExecutor(threads) as executor,
    ):
        for count in executor.map(store, places_in):
            progress.update(count)
    stored.flush()
    np.savez(
        folder / "frames.npz",
        allow_pickle=False,
        shapes=np.array([(part.height, part.width) for part in parts], np.int64),
        matrices=np.stack([part.matrix for part in parts]),
    )
    record = {
        "posequant": __version__,
        "people": len(chosen),
        "images": len(places_in),
        "geometry": _geometry(spec),
        "made_from": {people.name: sha256(people)},
        "sha256": {name: sha256(folder / name) for name in ("crops.npy", "frames.npz")},
    }
    write_json(folder / "crops.json", record)
    return record


class AugmentedCrops:
    """Crops of people as the network takes them, each time others of the same people.

    Attributes:
        sha256: hex SHA-256 of each file that they are cut from, by its name.
    """

    def __init__(self, folder: Path, spec: ModelSpec, threads: int = 1) -> None:
        """Open what `make_wide_crops` wrote. Pixels are read from the disk when they are asked for.

        Args:
            folder: what it wrote.
            spec: the description of the model that it was made for.
            threads: how many crops are cut at a time; no crop depends on it.

        Raises:
            InputError: a file is missing or damaged, or was made for crops of another kind.
        """
        record = read_json(folder / "crops.json")
        if not isinstance(record, dict) or record.get("geometry") != _geometry(spec):
            raise InputError(f"{folder}: made for crops of another kind. {_REMAKE}")
        self.sha256: dict[str, str] = record["sha256"]
        for name, digest in self.sha256.items():
            if (found := sha256(folder / name)) != digest:
                raise InputError(f"{folder / name}: changed after it was made: its SHA-256 is {found}. {_REMAKE}")
        self._pixels = np.load(folder / "crops.npy", mmap_mode="r")
        with np.load(folder / "frames.npz", allow_pickle=False) as file:
            self._shapes, self._matrices = file["shapes"], file["matrices"]
        self._ends = np.cumsum(self._shapes.prod(axis=1) * 3)
        self._spec, self._cropper, self._threads = spec, Cropper(spec), threads

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self._shapes)

    def batch(self, generator: np.random.Generator, count: int) -> Floats:
        """Return crops of people chosen at random, in random views: the network's input, float32 (count, 3, H, W).

        Nobody is in a batch twice that is no larger than the number of people. The crops follow from the generator.
        """
        people = generator.choice(len(self), count, replace=count > len(self))
        return self._cropper.normalise(self.cut(people, random_views(self._spec, generator, count)))

    def cut(self, people: NDArray[np.int64], views: Matrices) -> Pixels:
        """Return crops of people in given views, uint8 (N, H, W, 3) in BGR, black beyond the border of the image.

        Args:
            people: their places, int64 (N,).
            views: as `random_views` returns them, (N, 2, 3).
        """

        def one(person: int, view: Matrices) -> Pixels:
            height, width = self._shapes[person]
            end = self._ends[person]
            part = self._pixels[end - height * width * 3 : end].reshape(height, width, 3)
            matrix = self._matrices[person] @ np.vstack([view, (0, 0, 1)])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            return np.asarray(cv2.warpAffine(part, matrix, self._spec.input_size, flags=flags), np.uint8)

        with ThreadPoolExecutor(self._threads) as executor:
            return np.stack(list(executor.map(one, people.tolist(), views)))


def random_views(spec: ModelSpec, generator: np.random.Generator, count: int) -> Matrices:
    """Return random views of people, float64 (count, 2, 3).

    All are shifted by up to `SHIFT`, and half are mirrored. Three fifths are turned, too, by up to `DEGREES`, and have
    a frame of up to `SCALES` times the size. All is uniform.

    Returns:
        Affine matrices that take the pixels of a crop in that view to those of `Cropper.cut`.
    """
    shifts = generator.uniform(-SHIFT, SHIFT, (count, 2)) * spec.input_size
    turned = generator.random(count) < _TURNED
    scales = np.where(turned, generator.uniform(*SCALES, count), 1.0)
    angles = np.where(turned, np.radians(generator.uniform(-DEGREES, DEGREES, count)), 0.0)
    signs = np.where(generator.random(count) < _MIRRORED, -1.0, 1.0)
    cosines, sines = scales * np.cos(angles), scales * np.sin(angles)
    linear = np.stack([signs * cosines, -sines, signs * sines, cosines], axis=1).reshape(count, 2, 2)
    # The middle of a frame is on a pixel of the crop, or half a pixel off where the codec is unbiased.
    center = np.subtract(spec.input_size, 1 if spec.use_udp else 0) / 2
    offsets = center + shifts - linear @ center
    return np.concatenate([linear, offsets[..., np.newaxis]], axis=2)


def margin(spec: ModelSpec) -> tuple[int, int]:
    """Return how far beyond a crop a view can see, in pixels of the crop: on the left and right, above and below."""
    width, height = spec.input_size
    return _beyond(width, height), _beyond(height, width)


def _beyond(side: int, other: int) -> int:
    """Return how far beyond a `side` of a crop a view can see, where the `other` side is so long."""
    widest = min(math.radians(DEGREES), math.atan2(other, side))
    seen = max(SCALES) * (side * math.cos(widest) + other * math.sin(widest)) + 2 * SHIFT * side
    # One pixel more: the middle of a frame may be half a pixel off, and colours are mixed from two pixels.
    return math.ceil((seen - side) / 2) + 1


@dataclass(frozen=True)
class _Part:
    """The part of an image that crops of a person can see.

    Attributes:
        left: where it begins in the image.
        top: likewise.
        width: how large it is.
        height: likewise.
        matrix: float64 (2, 3), takes the pixels of the crop to its own.
        resize: float64 (2, 3), takes the image to it; None where it is taken as it is.
    """

    left: int
    top: int
    width: int
    height: int
    matrix: Matrices
    resize: Matrices | None = None

    def of(self, image: Pixels) -> Pixels:
        """Return its pixels, (height, width, 3)."""
        if self.resize is None:
            return image[self.top : self.top + self.height, self.left : self.left + self.width]
        size = self.width, self.height
        return np.asarray(cv2.warpAffine(image, self.resize, size, flags=cv2.INTER_LINEAR), np.uint8)


def _parts(spec: ModelSpec, people: Sequence[Person]) -> Iterator[_Part]:
    cropper, beyond = Cropper(spec), np.array(margin(spec))
    size = np.array(spec.input_size)
    first, last = -beyond, size - 1 + beyond
    for person, center, extent in zip(people, *cropper.frame(np.stack([one.bbox for one in people])), strict=True):
        to_crop = np.vstack([cropper.matrix(center, extent), (0, 0, 1)])
        if extent[0] > _FINEST * size[0]:
            matrix = np.column_stack([_FINEST * np.eye(2), _FINEST * beyond])
            width, height = _FINEST * (size + 2 * beyond)
            yield _Part(0, 0, int(width), int(height), matrix, matrix @ to_crop)
            continue
        to_image = np.linalg.inv(to_crop)[:2]
        start, end = (to_image @ (*corner, 1) for corner in (first, last))
        limit = np.array([person.image.width, person.image.height])
        left, top = (int(value) for value in np.clip(np.floor(start), 0, limit - 1))
        right, bottom = (int(value) for value in np.clip(np.ceil(end), (left, top), limit - 1) + 1)
        yield _Part(left, top, right - left, bottom - top, to_image - [[0, 0, left], [0, 0, top]])


def _geometry(spec: ModelSpec) -> dict[str, Any]:
    """Return all of a model that decides what its crops can see."""
    return {
        "input_size": list(spec.input_size),
        "margin": list(margin(spec)),
        "padding": spec.padding,
        "use_udp": spec.use_udp,
    }
