"""Images of every kind that users have: read as mmpose reads them, their sizes known from their headers."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from PIL import ExifTags, Image
from tests.unit.evaluation_fixtures import Dataset, draw_dataset

from posequant.base.errors import InputError
from posequant.data.dataset import ImageFile, evaluation_instances, header_size, read_image, require_sizes

WIDTH, HEIGHT = 60, 40
GENERATOR = np.random.default_rng(0)
# Smooth, so that a pixel that is out of place shows in spite of compression.
PIXELS = cv2.resize(GENERATOR.integers(0, 256, (4, 6, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
PICTURE = Image.fromarray(PIXELS)


def saved(picture: Image.Image, kind: str, orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    picture.save(stream, kind, exif=exif)
    return stream.getvalue()


def of_16_bits(channels: int) -> bytes:
    pixels = GENERATOR.integers(0, 1 << 16, (HEIGHT, WIDTH, channels), np.uint16)
    return bytes(cv2.imencode(".png", pixels)[1])


FILES: dict[str, bytes] = {
    **{f"turned {number}.jpg": saved(PICTURE, "JPEG", number) for number in range(1, 9)},
    "turned.png": saved(PICTURE, "PNG", 6),
    "turned.webp": saved(PICTURE, "WEBP", 6),
    "turned.tif": saved(PICTURE, "TIFF", 6),
    "grey.jpg": saved(PICTURE.convert("L"), "JPEG"),
    "grey.png": saved(PICTURE.convert("L"), "PNG"),
    "cmyk.jpg": saved(PICTURE.convert("CMYK"), "JPEG"),
    "cmyk turned.jpg": saved(PICTURE.convert("CMYK"), "JPEG", 8),
    "alpha.png": saved(PICTURE.convert("RGBA"), "PNG"),
    "grey alpha.png": saved(PICTURE.convert("LA"), "PNG"),
    "palette.png": saved(PICTURE.convert("P"), "PNG"),
    "black and white.png": saved(PICTURE.convert("1"), "PNG"),
    "16 bits.png": of_16_bits(3),
    "16 bits grey.png": of_16_bits(1),
    "16 bits alpha.png": of_16_bits(4),
    "plain.bmp": saved(PICTURE, "BMP"),
    "plain.gif": saved(PICTURE, "GIF"),
    "one pixel.jpg": saved(PICTURE.crop((0, 0, 1, 1)), "JPEG"),
    "one pixel.png": saved(PICTURE.crop((0, 0, 1, 1)), "PNG"),
}


@pytest.mark.parametrize("name", FILES)
def test_image_is_read_as_by_mmpose(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    # Of mmpose 1.3.2, LoadImage is mmcv's LoadImageFromFile, which calls this.
    expected = mmcv.imfrombytes(FILES[name], flag="color", backend="cv2")
    height, width = expected.shape[:2]
    found = read_image(tmp_path, ImageFile(1, name, width, height))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    assert header_size(tmp_path / name) == (width, height)


def test_some_of_them_are_turned() -> None:
    upright = [number for number in range(1, 9) if header_size(io.BytesIO(FILES[f"turned {number}.jpg"])) == (60, 40)]
    assert upright == [1, 2, 3, 4]


def too_large(side: int) -> bytes:
    """A PNG of one colour with so many pixels a side."""
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "PNG")
    return stream.getvalue()


def test_image_too_large_for_memory_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(too_large(40_000))
    with pytest.raises(InputError, match=r"bomb\.png: the image has 40000x40000 pixels, but its annotation says 60x40"):
        read_image(tmp_path, ImageFile(1, "bomb.png", WIDTH, HEIGHT))
    with pytest.raises(InputError, match=r"bomb\.png: OpenCV cannot read the image \(.*PIXELS"):
        read_image(tmp_path, ImageFile(1, "bomb.png", 40_000, 40_000))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(FILES["turned 1.jpg"]), "has 60x40 pixels, but its annotation says"),
        (lambda path: path.write_bytes(FILES["turned 6.jpg"]), "has 40x60 pixels, but its annotation says"),
        (lambda path: path.unlink(), None),  # only the files of images with people have to be there
    ],
)
def test_wrong_size_of_an_image_that_nobody_is_left_in_is_found(
    dataset: Dataset, tmp_path: Path, damage: Callable[[Path], object], message: str | None
) -> None:
    everyone = evaluation_instances(dataset.annotations, None)
    for path in dataset.images.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    people = everyone.select(everyone.image_indices != 3)
    damage(tmp_path / everyone.images[3].file_name)
    # The images with people are read in full, and so are not looked at here.
    damage(tmp_path / everyone.images[2].file_name)
    if message is None:
        require_sizes(tmp_path, people, 1, 1)
        return
    with pytest.raises(InputError, match=f"{everyone.images[3].file_name}: the image {message}"):
        require_sizes(tmp_path, people, 1, 1)
    require_sizes(tmp_path, people, 2, 2)  # of the others, this shard has none
    turned = ImageFile(everyone.images[3].id, everyone.images[3].file_name, 40, 60)
    if "40x60" in message:
        images = tuple(turned if index == 3 else image for index, image in enumerate(everyone.images))
        require_sizes(tmp_path, replace(people, images=images), 1, 1)
