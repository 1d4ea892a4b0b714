"""What is read of COCO's annotations and detection results, with the type and range of each value.

All that anything later reads is checked here, once, before the first image is opened. What is not named here is not
read. The format: https://cocodataset.org/#format-data and #format-results.
"""

import re
import reprlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from posequant.base.errors import InputError
from posequant.workflow.settings.base import fault

# The largest image that OpenCV reads: pixels a side, and in all.
MAX_SIDE, MAX_PIXELS = 1 << 20, 1 << 30
# Of a path and of each name in it, in bytes, on Linux and macOS.
_LONGEST_PATH, _LONGEST_NAME = 1023, 255


def _inside(name: str) -> str:
    """Return the path of an image if it stays in the folder of images and can be that of a file."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise fault("leads out of the folder of images; give a path below it")
    if not path.parts or re.search("[\0\ud800-\udfff]", name):
        raise fault("is no name of a file")
    if len(name.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        raise fault("is longer than the name of a file may be")
    return name


Identifier = Annotated[int, Field(ge=0, lt=1 << 63)]
# pycocotools takes the annotation id 0 for "nobody".
AnnotationIdentifier = Annotated[int, Field(ge=1, lt=1 << 63)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
# In pixels. Boxes and keypoints may lie beyond the border, but not beyond all sense.
Coordinate = Annotated[float, Field(ge=-MAX_SIDE, le=MAX_SIDE)]


def _triplets(values: list[float], info: ValidationInfo) -> list[float]:
    """Return keypoints if there are as many as `check_entries` was told."""
    wanted = (info.context or {}).get("keypoints", len(values) // 3)
    if len(values) != 3 * wanted:
        raise fault(f"has {len(values) / 3:g} keypoints, not {wanted}")
    return values


# x, y and visibility of each keypoint.
Triplets = Annotated[list[Coordinate], AfterValidator(_triplets), Field(min_length=3)]
FileName = Annotated[str, AfterValidator(_inside)]


class Entry(BaseModel):
    """An entry of a list in a file. Types are taken at their word, and numbers are finite."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Image(Entry):
    """An image: its path inside the folder of images, and its size in pixels."""

    id: Identifier
    file_name: FileName
    width: Side
    height: Side
    # Of CrowdPose's images: how much people overlap.
    crowd_index: Annotated[float, Field(ge=0)] | None = Field(default=None, alias="crowdIndex")

    @model_validator(mode="after")
    def _can_be_read(self) -> "Image":
        if self.width * self.height > MAX_PIXELS:
            raise fault(f"{self.width}x{self.height} pixels are more than can be read, {MAX_PIXELS}")
        return self


class Annotation(Entry):
    """An annotation of anything."""

    id: AnnotationIdentifier
    category_id: Identifier


class PersonAnnotation(Annotation):
    """A person: box (left, top, width, height) in pixels, area in square pixels, and keypoints (x, y, visibility)."""

    image_id: Identifier
    bbox: Annotated[list[Coordinate], Field(min_length=4, max_length=4)]
    # COCO's keypoint metrics leave larger people out.
    area: Annotated[float, Field(ge=0, le=1e10)]
    iscrowd: Annotated[int, Field(ge=0, le=1)] | bool
    num_keypoints: Annotated[int, Field(ge=0)]
    keypoints: Triplets
    # Of MPII's people, in pixels: what PCKh is measured by.
    head_size: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _agrees(self, info: ValidationInfo) -> "PersonAnnotation":
        visibility = self.keypoints[2::3]
        if not {0, 1, 2}.issuperset(visibility):
            raise fault("each third number of keypoints should be 0, 1 or 2: not labelled, hidden or visible")
        labelled = len(visibility) - visibility.count(0)
        if self.num_keypoints > len(visibility):
            raise fault(f"num_keypoints is {self.num_keypoints}, but there are {len(visibility)} keypoints")
        if self.iscrowd:
            return self
        # Whether it is 0 decides who counts.
        counted = visibility.count(2) if (info.context or {}).get("only_visible") else labelled
        if (counted == 0) != (self.num_keypoints == 0):
            raise fault(f"num_keypoints is {self.num_keypoints}, but {labelled} keypoints are labelled")
        if labelled and self.area == 0:
            raise fault("area is 0; it should be that of the person in square pixels, by which OKS is measured")
        return self


class Detection(Entry):
    """A detected box (left, top, width, height) in pixels, and its score; what follows in `bbox` is not read."""

    image_id: Identifier
    category_id: Identifier
    bbox: Annotated[list[Coordinate], Field(min_length=4)]
    score: Annotated[float, Field(ge=0, le=1e6)]


class Subset(Entry):
    """What a file says of a subset of an evaluation set, as `evaluation_people` chose it."""

    people: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    images: Annotated[int, Field(ge=1)]
    sha256: str


class CalibrationPerson(Entry):
    """A person of a `calibration.json`: box (left, top, right, bottom) in pixels, the rest as in `PersonAnnotation`."""

    image: Image
    bbox: Annotated[list[Coordinate], Field(min_length=4, max_length=4)]
    area: Annotated[float, Field(gt=0, le=1e10)]
    keypoints: Triplets


def check_entries(
    path: Path,
    name: str,
    entries: Iterable[Any],
    kind: type[Entry],
    *,
    keypoints: int | None = None,
    only_visible: bool = False,
) -> None:
    """Check every entry of a list of a file.

    Args:
        path: the file.
        name: of an entry, in messages.
        entries: as they were read.
        kind: what each must be.
        keypoints: how many each must have; None for any number.
        only_visible: whether `num_keypoints` counts those that are visible, not all that are labelled.

    Raises:
        InputError: naming the file, the first entry that is wrong, by its id where it has one, and what is wrong.
    """
    validate = kind.__pydantic_validator__.validate_python
    context = {"only_visible": only_visible} | ({} if keypoints is None else {"keypoints": keypoints})
    for place, entry in enumerate(entries):
        try:
            validate(entry, context=context)
        except ValidationError as error:
            raise InputError(f"{path}: {_name(name, entry, place)}{_in_words(error)}") from None


def _name(name: str, entry: Any, place: int) -> str:
    identifier = entry.get("id") if isinstance(entry, dict) else None
    return f"{name} id {reprlib.repr(identifier)}" if isinstance(identifier, int) else f"{name} number {place}"


def _in_words(error: ValidationError) -> str:
    first, *_ = faults = error.errors(include_url=False)
    if lacking := sorted(".".join(map(str, one["loc"])) for one in faults if one["type"] == "missing"):
        return f" lacks {', '.join(lacking)}"
    field, *inner = first["loc"] or ("",)
    # Of the kinds that a value may have, pydantic gives the name.
    place = f"{field}{''.join(f'[{step}]' for step in inner if isinstance(step, int))}"
    message = first["msg"]
    if first["type"] in ("model_type", "model_attributes_type"):
        return f" is {reprlib.repr(first['input'])}, not a mapping of keys to values"
    if first["type"] in ("too_short", "too_long"):
        count = len(first["input"])
        if field == "keypoints":
            return f" has {count / 3:g} keypoints"
        return f": {place} has {count} numbers, not 4"
    if field == "keypoints" and first["type"] == "fault":
        return f" {message}"
    if not place:
        return f": {message}"
    said = message.removeprefix("Input ")
    shown = reprlib.repr(first["input"])
    return f": {place} is {shown}; it {said}" if said != message else f": {place} {shown} {message}"
