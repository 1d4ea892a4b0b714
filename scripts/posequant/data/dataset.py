"""People to evaluate on: COCO keypoint annotations, detector boxes and the images they belong to."""

import contextlib
import io
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import coco as pycocotools

from posequant.base.errors import InputError
from posequant.base.files import read_json
from posequant.base.keypoints import COCO, KeypointSet
from posequant.data import coco_format

_PERSON_FIELDS = tuple(coco_format.PersonAnnotation.model_fields)
_IMAGE_FIELDS = ("id", "file_name", "width", "height")
# CrowdPose has no areas, its num_keypoints counts visible keypoints only, and its images have a crowd index (mmpose
# 1.3.2, CocoMetric with iou_type keypoints_crowd and use_area False).
CROWD = "crowdpose"
# Where COCO-WholeBody's annotations have its keypoints, in their order.
_PARTS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
AREA_OF_BOX = 0.53
"""A person's area by that of the box, where it is not annotated (mmpose 1.3.2, base_coco_style_dataset.py)."""
_USERS_FILE = "Mend it, or fetch it again."
# Where the annotations of a subset say how it was chosen.
SUBSET_KEY = "posequant_subset"


@dataclass(frozen=True)
class ImageFile:
    """An image of a dataset: its COCO id, its path inside the image folder, and its size in pixels."""

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Subset:
    """How the images of an evaluation set were chosen from all that it has.

    Attributes:
        people: that they were to hold, at least.
        seed: of the random order in which images were taken.
        images: how many there were to choose from.
        sha256: of the annotations of all, in hex.
    """

    people: int
    seed: int
    images: int
    sha256: str


@dataclass(frozen=True)
class Instances:
    """N people, each a box in an image.

    Attributes:
        ids: int64 (N,); annotation id, or for a detected box its place among the person boxes of the file.
        image_indices: int64 (N,); the image of each, as an index of `images`.
        bboxes: float32 (N, 4); left, top, right, bottom in pixels.
        bbox_scores: float32 (N,); confidence of the box, 1 for annotated ones.
        images: the images, each once, whether somebody is in them or not.
        notices: who is not among them though the file has them, and probably by a mistake in it: sentences.
        subset: how their images were chosen, if they are not all of the evaluation set.
    """

    ids: NDArray[np.int64]
    image_indices: NDArray[np.int64]
    bboxes: NDArray[np.float32]
    bbox_scores: NDArray[np.float32]
    images: tuple[ImageFile, ...]
    notices: tuple[str, ...] = ()
    subset: Subset | None = None

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.ids)

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """COCO id of the image of each, int64 (N,)."""
        return np.array([image.id for image in self.images], np.int64)[self.image_indices]

    def select(self, indices: NDArray[np.int64] | NDArray[np.bool_]) -> "Instances":
        """Return the people at `indices`, in that order."""
        return replace(
            self,
            ids=self.ids[indices],
            image_indices=self.image_indices[indices],
            bboxes=self.bboxes[indices],
            bbox_scores=self.bbox_scores[indices],
        )


# People that one thread takes at a time: enough for a batch, and few enough to keep all threads busy to the end.
CHUNK = 8


def by_image(instances: Instances) -> NDArray[np.int64]:
    """Return the order of the people image by image, whatever the order of their boxes, so that each is read once."""
    return np.argsort(instances.image_indices, kind="stable")


def shard_of(instances: Instances, shard: int, shards: int) -> Instances:
    """Return the people of shard number `shard` of `shards`, in their order: about as many as in the others.

    A network that takes a chunk as one batch may round by what else is in it. Therefore no chunk is ever cut: a shard
    is a run of those that are made of all people, image by image.

    Raises:
        InputError: `shard` is not in 1..`shards`.
    """
    if not 1 <= shard <= shards:
        raise InputError(f"shard {shard} of {shards}: give a number from 1 to the number of shards.")
    chunks = np.array_split(np.arange(0, len(instances), CHUNK), shards)[shard - 1]
    people = by_image(instances)[chunks[0] : chunks[-1] + CHUNK] if len(chunks) else chunks
    return instances.select(np.sort(people))


@dataclass(frozen=True)
class Annotations:
    """A COCO keypoint annotation file that was found to be sound.

    Attributes:
        path: the file.
        coco: in pycocotools' index, its people and images, each with the fields that `coco_format` checks, and images
            with their `coco_url`, unchecked.
        categories: the category ids of the annotations that have keypoints, in ascending order: mostly one; AP-10K has
            one for each species.
        images: all its images, in its order.
        keypoints: what its people have.
        subset: how they were chosen, where the file has but a subset of an evaluation set.
    """

    path: Path
    coco: pycocotools.COCO
    categories: tuple[int, ...]
    images: tuple[ImageFile, ...]
    keypoints: KeypointSet = COCO
    subset: Subset | None = None

    @property
    def category_of(self) -> int | dict[int, int]:
        """The category id of everybody, or where there are several that of each annotation, by its id."""
        if len(self.categories) == 1:
            return self.categories[0]
        return {identifier: person["category_id"] for identifier, person in self.coco.anns.items()}


def load_image_addresses(path: Path) -> dict[ImageFile, str | None]:
    """Return the images of a COCO annotation file, each with its `coco_url`, None where it has none.

    Raises:
        InputError: the file is missing, is not in COCO's format, or an image is not as `coco_format` has it.
    """
    return {_image_file(entry): entry.get("coco_url") for entry in _checked_content(path)["images"]}


def load_annotations(path: Path, keypoints: KeypointSet | None = None) -> Annotations:
    """Read a COCO keypoint annotation file.

    Whatever a later step reads of the file is checked: nothing else is handed on.

    Args:
        path: the file.
        keypoints: what its people must have. Without, they have what the file says of their category, or as many as
            most of them, COCO's where those are 17.

    Raises:
        InputError: the file is missing, is not in COCO's format, holds no people with these keypoints, or an image or
            annotation is not as `coco_format` has it (the message names it).
    """
    content = _checked_content(path)
    categories = {entry["category_id"] for entry in content["annotations"] if entry.get("keypoints")}
    if not categories:
        raise InputError(f"{path}: no annotation has keypoints. Give COCO's person_keypoints file, not instances.")
    people = [entry for entry in content["annotations"] if entry["category_id"] in categories]
    keypoints = keypoints or _keypoints_of(content["categories"], categories, people)
    if keypoints == COCO and len(categories) != 1:
        raise InputError(
            f"{path}: keypoints of {len(categories)} categories. COCO has those of one, the person: keep only these, "
            "or say whose keypoints they are, as dataset.keypoints of a study does."
        )
    if keypoints != COCO:
        people = [_completed(entry, keypoints) for entry in people]
    coco_format.check_entries(
        path,
        "annotation",
        people,
        coco_format.PersonAnnotation,
        keypoints=len(keypoints),
        only_visible=keypoints.name == CROWD,
    )
    images = tuple(_image_file(image) for image in content["images"])
    pixels = {image.id: image.width * image.height for image in images}
    for entry in people:
        if entry["image_id"] not in pixels:
            raise InputError(f"{path}: annotation id {entry['id']} is of image {entry['image_id']}, which is not there")
        # OKS would take any prediction for right.
        if entry["area"] > max(pixels[entry["image_id"]], entry["bbox"][2] * entry["bbox"][3]):
            raise InputError(
                f"{path}: annotation id {entry['id']}: area is {entry['area']:g}, more than its image and its box have"
            )
    _require_order(path, content["categories"], categories, keypoints)
    checked = {
        "images": [
            {name: image[name] for name in _IMAGE_FIELDS}
            | {name: image.get(name) for name in ("coco_url", "crowdIndex")}
            for image in content["images"]
        ],
        "annotations": [{name: entry.get(name) for name in _PERSON_FIELDS} for entry in people],
        "categories": [{"id": one} for one in sorted(categories)],
    }
    return Annotations(
        path, index_annotations(checked), tuple(sorted(categories)), images, keypoints, _subset(path, content)
    )


def evaluation_instances(annotations: Path, detections: Path | None, keypoints: KeypointSet | None = None) -> Instances:
    """Return the people of an evaluation set: the detected ones where there are `detections`, else the annotated.

    Raises:
        InputError: as `load_annotations`, `ground_truth_instances` and `detected_instances`.
    """
    annotated = load_annotations(annotations, keypoints)
    if detections and annotated.keypoints.sigmas is None:
        raise InputError(
            f"the keypoints {annotated.keypoints} have no sigmas, and are measured in annotated boxes only. Choose "
            "protocol: {boxes: ground-truth}, or give sigmas."
        )
    return detected_instances(annotated, detections) if detections else ground_truth_instances(annotated)


def ground_truth_instances(annotations: Annotations) -> Instances:
    """Return the annotated people, image by image, as mmpose's CocoDataset takes them in test mode.

    Boxes are clipped to the image; crowds, people without keypoints and empty boxes are left out. Source: mmpose
    1.3.2, base_coco_style_dataset.py, `parse_data_info` and `_is_valid_instance`. People who are left out though they
    have keypoints are named in the notices.

    Raises:
        InputError: nobody is left.
    """
    rows = [
        (index, entry)
        for index, image in enumerate(annotations.images)
        for entry in annotations.coco.imgToAnns.get(image.id, ())
    ]
    image_indices = np.array([index for index, _ in rows], np.int64)
    people = [entry for _, entry in rows]
    sizes = np.array([(image.width, image.height) for image in annotations.images])
    corner, extent = np.split(np.array([entry["bbox"] for entry in people], np.float64), 2, axis=1)
    last_pixel = sizes[image_indices] - 1
    bboxes = np.hstack([corner.clip(0, last_pixel), (corner + extent).clip(0, last_pixel)]).astype(np.float32)
    keypoints = np.array([entry["keypoints"] for entry in people], np.float32).reshape(
        -1, len(annotations.keypoints), 3
    )
    labelled = np.array([not entry["iscrowd"] and entry["num_keypoints"] != 0 for entry in people])
    inside = (bboxes[:, 2:] > bboxes[:, :2]).all(axis=1) & (keypoints[..., :2].max(axis=(1, 2)) > 0)
    ids = np.array([entry["id"] for entry in people], np.int64)
    if not (labelled & inside).any():
        raise InputError(f"{annotations.path}: no person with keypoints and a box inside the image")
    notices = []
    if lost := ids[labelled & ~inside].tolist():
        notices.append(
            f"{annotations.path}: {len(lost)} of {labelled.sum()} people with keypoints are left out, and count as "
            "missed where they are evaluated on: their box is empty or outside the image, or no keypoint is inside: "
            f"annotation ids {first_of(lost)}"
        )
    found = Instances(
        ids=ids,
        image_indices=image_indices,
        bboxes=bboxes,
        bbox_scores=np.ones(len(people), np.float32),
        images=annotations.images,
        notices=tuple(notices),
        subset=annotations.subset,
    )
    return found.select(labelled & inside)


def detected_instances(annotations: Annotations, path: Path) -> Instances:
    """Return the person boxes of a COCO detection file, in its order, as mmpose's CocoDataset takes them.

    Boxes are neither clipped nor filtered by score. Source: mmpose 1.3.2, base_coco_style_dataset.py,
    `_load_detection_results`. Boxes without extent, and those in images that are not annotated, are left out and
    counted in the notices.

    Raises:
        InputError: the file is missing, is no list of detections, one is not as `coco_format.Detection` has it, or none
            is left; the annotations are of several categories.
    """
    if len(annotations.categories) > 1:
        raise InputError(
            f"{annotations.path}: keypoints of {len(annotations.categories)} categories are evaluated in annotated "
            "boxes only. Choose protocol: {boxes: ground-truth}."
        )
    detections = read_json(path, _USERS_FILE)
    if not isinstance(detections, list):
        raise InputError(f"{path}: not COCO detection results: those are a list of boxes")
    coco_format.check_entries(path, "detection", detections, coco_format.Detection)
    people = [entry for entry in detections if entry["category_id"] == annotations.categories[0]]
    index_of = {image.id: index for index, image in enumerate(annotations.images)}
    image_indices = np.array([index_of.get(entry["image_id"], -1) for entry in people], np.int64)
    # In float32 from the start, as mmpose adds them.
    boxes = np.array([entry["bbox"][:4] for entry in people], np.float64).astype(np.float32).reshape(-1, 4)
    scores = np.array([entry["score"] for entry in people], np.float64).astype(np.float32)
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    known, extended = image_indices >= 0, (corners[:, 2:] > corners[:, :2]).all(axis=1)
    if not (known & extended).any():
        raise InputError(f"{path}: no box of a person in an image of {annotations.path}")
    ids = np.arange(len(people), dtype=np.int64)
    notices = []
    strangers = sorted({entry["image_id"] for entry, there in zip(people, known, strict=True) if not there})
    # To a subset, all other images are.
    if strangers and not annotations.subset:
        notices.append(
            f"{path}: {(~known).sum()} of {len(people)} boxes of people are left out: {annotations.path} has no image "
            f"{first_of(strangers)}"
        )
    if empty := ids[known & ~extended].tolist():
        notices.append(
            f"{path}: {len(empty)} of {len(people)} boxes of people are left out, as they have no width or height: "
            f"numbers {first_of(empty)} of the people, from 0"
        )
    found = Instances(
        ids=ids,
        image_indices=image_indices,
        bboxes=corners,
        bbox_scores=scores,
        images=annotations.images,
        notices=tuple(notices),
        subset=annotations.subset,
    )
    return found.select(known & extended)


def say_notices(instances: Instances) -> None:
    """Print the notices of people to stderr, where the log of a step and the terminal show them."""
    for notice in instances.notices:
        print(f"notice: {notice}", file=sys.stderr)


def require_images(folder: Path, images: Iterable[ImageFile]) -> None:
    """Raise `InputError` unless the file of every image is in `folder`."""
    missing = [image.file_name for image in images if not _is_file(folder / image.file_name)]
    if missing:
        raise InputError(f"{folder}: lacks the annotated images {first_of(missing)}")


def require_sizes(folder: Path, instances: Instances, shard: int, shards: int) -> None:
    """Raise `InputError` where an image that nobody of an evaluation set is in has another size than annotated.

    Those with people are read in full, and their size is looked at by `read_image`. Here, of the others that are in
    `folder`, only the headers are read; a wrong size may be why nobody is left in them.

    Args:
        folder: of the images.
        instances: all people of the evaluation set.
        shard: which of the shards of these images to look at, from 1.
        shards: how many there are.
    """
    others = np.setdiff1d(np.arange(len(instances.images)), instances.image_indices)[shard - 1 :: shards]
    for image in (instances.images[index] for index in others):
        path = folder / image.file_name
        if _is_file(path) and header_size(path) not in (None, (image.width, image.height)):
            read_image(folder, image)  # what it finds counts


def read_image(folder: Path, image: ImageFile) -> NDArray[np.uint8]:
    """Return the pixels of an image, uint8 (height, width, 3) in BGR, turned as its EXIF orientation says.

    The same as mmpose reads (mmcv's `imfrombytes`): grey and CMYK become BGR, 16 bits 8, and transparency is ignored.

    Raises:
        InputError: the file cannot be read, is damaged, or has another size than annotated.
    """
    import cv2

    path = folder / image.file_name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read ({error.strerror})") from error
    # Before it is decoded, as that may take more memory than there is. OpenCV knows best which way up it is.
    size = header_size(BytesIO(data))
    if size and sorted(size) != sorted((image.width, image.height)):
        raise _wrong_size(path, size, image)
    # OpenCV fills what a cut-off JPEG lacks with grey and says nothing: look for the end marker of its last scan.
    cut_off = data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data and not cut_off else None
    except cv2.error as error:  # too large for it, or for the memory
        raise InputError(f"{path}: OpenCV cannot read the image ({error.err})") from error
    if pixels is None:
        raise InputError(f"{path}: the image is damaged. Fetch it again.")
    if pixels.shape[:2] != (image.height, image.width):
        raise _wrong_size(path, (pixels.shape[1], pixels.shape[0]), image)
    return np.asarray(pixels, np.uint8)


def header_size(file: Path | BytesIO) -> tuple[int, int] | None:
    """Return the width and height of an image as its header has them, turned as its EXIF orientation says.

    None where Pillow does not know the file.
    """
    from PIL import ExifTags, Image

    Image.MAX_IMAGE_PIXELS = None  # no pixels are read
    try:
        with Image.open(file) as image:
            # Pillow would decode others to look for what is behind their pixels.
            tells = image.format == "JPEG" or "exif" in image.info
            turned = tells and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            width, height = image.size
    except Exception:  # of a damaged file, of many kinds
        return None
    return (height, width) if turned else (width, height)


def first_of(names: Sequence[object]) -> str:
    """Return the first three of many names, and how many there are beside."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(str, names[:3])) + more


def index_annotations(content: dict[str, Any]) -> pycocotools.COCO:
    """Return pycocotools' index of annotations, the content of a COCO file, without its chatter."""
    coco = pycocotools.COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _subset(path: Path, content: dict[str, Any]) -> Subset | None:
    said = content.get(SUBSET_KEY)
    if said is None:
        return None
    coco_format.check_entries(path, SUBSET_KEY, [said], coco_format.Subset)
    return Subset(**{name: said[name] for name in Subset.__annotations__})


def _require_each_once(path: Path, name: str, entries: Sequence[dict[str, Any]]) -> None:
    for identifier, count in Counter(entry["id"] for entry in entries).most_common(1):
        if count > 1:
            raise InputError(f"{path}: {name} id {identifier} appears {count} times")


def _checked_content(path: Path) -> dict[str, Any]:
    """Return a COCO annotation file whose images and annotations are each there once, with what all of them need."""
    content = read_json(path, _USERS_FILE)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise InputError(f"{path}: not a COCO annotation file: it needs the lists images, annotations and categories")
    for name, kind in (("image", coco_format.Image), ("annotation", coco_format.Annotation)):
        coco_format.check_entries(path, name, content[f"{name}s"], kind)
        _require_each_once(path, name, content[f"{name}s"])
    return content


def _image_file(entry: Mapping[str, Any]) -> ImageFile:
    return ImageFile(*(entry[name] for name in ImageFile.__annotations__))


def _completed(entry: dict[str, Any], keypoints: KeypointSet) -> dict[str, Any]:
    """Return a person with what datasets other than COCO keep elsewhere or leave out."""
    parts = [entry.get(name) for name in _PARTS]
    if all(isinstance(part, list) for part in parts):
        joined = [number for part in parts if part for number in part]
        if len(joined) == 3 * len(keypoints):
            entry = {name: value for name, value in entry.items() if name != "num_keypoints"} | {"keypoints": joined}
    found = entry.get("keypoints")
    if isinstance(found, list) and "num_keypoints" not in entry:
        entry = entry | {"num_keypoints": sum(value != 0 for value in found[2::3])}
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4 and (keypoints.name == CROWD or not entry.get("area")):
        with contextlib.suppress(TypeError):  # of what is no box, the next check tells
            entry = entry | {"area": max(AREA_OF_BOX * box[2] * box[3], 1.0)}
    return entry if "iscrowd" in entry else entry | {"iscrowd": 0}


def _keypoints_of(categories: Sequence[Any], used: set[int], people: Sequence[dict[str, Any]]) -> KeypointSet:
    """Return the keypoints of people of whom nobody has said what they are."""
    lengths = Counter(
        len(found) // 3 for entry in people if isinstance(found := entry.get("keypoints"), list) and found
    )
    count = max(lengths, key=lengths.__getitem__, default=len(COCO))
    named = next((names for names in _names(categories, used) if len(names) == count), None)
    if count == len(COCO) and (named is None or {*map(str, named)} == {*COCO.names}):
        return COCO
    return KeypointSet.unknown(tuple(map(str, named or range(count))))


def _names(categories: Sequence[Any], used: set[int]) -> Iterator[list[Any]]:
    """Yield what categories in use call their keypoints, where they say it."""
    for entry in categories:
        names = entry.get("keypoints") if isinstance(entry, dict) and entry.get("id") in [*used] else None
        if isinstance(names, list):
            yield names


def _require_order(path: Path, categories: Sequence[Any], used: set[int], keypoints: KeypointSet) -> None:
    """Raise `InputError` if a category in use names the same keypoints in another order."""
    for names in _names(categories, used):
        if names != list(keypoints.names) and set(map(str, names)) == set(keypoints.names):
            raise InputError(
                f"{path}: category {next(iter(used))} has the keypoints in another order than {_whose(keypoints)}"
            )


def _whose(keypoints: KeypointSet) -> str:
    return "COCO's" if keypoints == COCO else f"the set {keypoints.name}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _wrong_size(path: Path, size: tuple[int, int], image: ImageFile) -> InputError:
    return InputError(
        f"{path}: the image has {size[0]}x{size[1]} pixels, but its annotation says {image.width}x{image.height}"
    )
