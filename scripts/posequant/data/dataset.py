"""People to evaluate on: COCO keypoint annotations, detector boxes and the images they belong to."""

import contextlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from posequant.base.errors import InputError
from posequant.base.files import read_json
from posequant.base.keypoints import KEYPOINTS, SIGMAS
from posequant.base.keypoints import NUM_KEYPOINTS as NUM_KEYPOINTS

_IMAGE_FIELDS = {"id", "file_name", "width", "height"}
_PERSON_FIELDS = {"image_id", "bbox", "area", "iscrowd", "num_keypoints", "keypoints"}


@dataclass(frozen=True)
class ImageFile:
    """An image of a dataset: its COCO id, its path inside the image folder, and its size in pixels."""

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Instances:
    """N people, each a box in an image.

    Attributes:
        ids: int64 (N,); annotation id, or for a detected box its place among the person boxes of the file.
        image_indices: int64 (N,); the image of each, as an index of `images`.
        bboxes: float32 (N, 4); left, top, right, bottom in pixels.
        bbox_scores: float32 (N,); confidence of the box, 1 for annotated ones.
        images: the images, each once.
    """

    ids: NDArray[np.int64]
    image_indices: NDArray[np.int64]
    bboxes: NDArray[np.float32]
    bbox_scores: NDArray[np.float32]
    images: tuple[ImageFile, ...]

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
    """A COCO keypoint annotation file that was found to be complete.

    Attributes:
        path: the file.
        coco: its content in pycocotools' index.
        person_category: the category id of the annotations that have keypoints.
        images: all its images, in its order.
    """

    path: Path
    coco: COCO
    person_category: int
    images: tuple[ImageFile, ...]


def load_annotations(path: Path) -> Annotations:
    """Read a COCO keypoint annotation file.

    Raises:
        InputError: the file is missing, is not in COCO's format, holds no people with 17 keypoints, or an image or
            annotation lacks what evaluation needs (the message names it).
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise InputError(f"{path}: not a COCO annotation file: it needs the lists images, annotations and categories")
    _require_fields(path, "image", content["images"], _IMAGE_FIELDS)
    _require_fields(path, "annotation", content["annotations"], {"id", "category_id"})
    categories = {entry["category_id"] for entry in content["annotations"] if entry.get("keypoints")}
    if not categories:
        raise InputError(f"{path}: no annotation has keypoints. Give COCO's person_keypoints file, not instances.")
    if len(categories) != 1:
        raise InputError(f"{path}: keypoints of {len(categories)} categories; keep those of one, the person")
    people = [entry for entry in content["annotations"] if entry["category_id"] in categories]
    _require_fields(path, "annotation", people, _PERSON_FIELDS)
    _require_sound_people(path, people, {image["id"] for image in content["images"]})
    images = tuple(ImageFile(*(image[name] for name in ImageFile.__annotations__)) for image in content["images"])
    return Annotations(path, index_annotations(content), categories.pop(), images)


def evaluation_instances(annotations: Path, detections: Path | None) -> Instances:
    """Return the people of an evaluation set: the detected ones where there are `detections`, else the annotated.

    Raises:
        InputError: as `load_annotations`, `ground_truth_instances` and `detected_instances`.
    """
    annotated = load_annotations(annotations)
    return detected_instances(annotated, detections) if detections else ground_truth_instances(annotated)


def ground_truth_instances(annotations: Annotations) -> Instances:
    """Return the annotated people, image by image, as mmpose's CocoDataset takes them in test mode.

    Boxes are clipped to the image; crowds, people without keypoints and empty boxes are left out. Source: mmpose
    1.3.2, base_coco_style_dataset.py, `parse_data_info` and `_is_valid_instance`.

    Raises:
        InputError: nobody is left.
    """
    rows = [
        (index, entry)
        for index, image in enumerate(annotations.images)
        for entry in annotations.coco.imgToAnns.get(image.id, ())
        if entry["category_id"] == annotations.person_category
    ]
    image_indices = np.array([index for index, _ in rows], np.int64)
    people = [entry for _, entry in rows]
    sizes = np.array([(image.width, image.height) for image in annotations.images])
    corner, extent = np.split(np.array([entry["bbox"] for entry in people], np.float64), 2, axis=1)
    last_pixel = sizes[image_indices] - 1
    bboxes = np.hstack([corner.clip(0, last_pixel), (corner + extent).clip(0, last_pixel)]).astype(np.float32)
    keypoints = np.array([entry["keypoints"] for entry in people], np.float32).reshape(-1, NUM_KEYPOINTS, 3)
    valid = np.array([not entry["iscrowd"] and entry["num_keypoints"] != 0 for entry in people])
    valid &= (bboxes[:, 2:] > bboxes[:, :2]).all(axis=1)
    valid &= keypoints[..., :2].max(axis=(1, 2)) > 0
    if not valid.any():
        raise InputError(f"{annotations.path}: no person with keypoints and a box inside the image")
    found = Instances(
        ids=np.array([entry["id"] for entry in people], np.int64),
        image_indices=image_indices,
        bboxes=bboxes,
        bbox_scores=np.ones(len(people), np.float32),
        images=annotations.images,
    )
    return found.select(valid)


def detected_instances(annotations: Annotations, path: Path) -> Instances:
    """Return the person boxes of a COCO detection file, in its order, as mmpose's CocoDataset takes them.

    Boxes are neither clipped nor filtered by score. Source: mmpose 1.3.2, base_coco_style_dataset.py,
    `_load_detection_results`. Boxes without extent, and those in images that are not annotated, are left out.

    Raises:
        InputError: the file is missing, is no list of detections, or none is left.
    """
    detections = read_json(path)
    if not isinstance(detections, list):
        raise InputError(f"{path}: not COCO detection results: those are a list of boxes")
    _require_fields(path, "detection", detections, {"image_id", "category_id", "bbox", "score"})
    people = [entry for entry in detections if entry["category_id"] == annotations.person_category]
    index_of = {image.id: index for index, image in enumerate(annotations.images)}
    image_indices = np.array([index_of.get(entry["image_id"], -1) for entry in people], np.int64)
    # In float32 from the start, as mmpose adds them.
    boxes = _number_rows(path, [entry["bbox"][:4] for entry in people], 4).astype(np.float32)
    scores = _number_rows(path, [[entry["score"]] for entry in people], 1).astype(np.float32)[:, 0]
    known = (image_indices >= 0) & (boxes[:, 2:] > 0).all(axis=1)
    if not known.any():
        raise InputError(f"{path}: no box of a person in an image of {annotations.path}")
    found = Instances(
        ids=np.arange(len(people), dtype=np.int64),
        image_indices=image_indices,
        bboxes=np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
        bbox_scores=scores,
        images=annotations.images,
    )
    return found.select(known)


def require_images(folder: Path, images: Iterable[ImageFile]) -> None:
    """Raise `InputError` unless the file of every image is in `folder`."""
    missing = [image.file_name for image in images if not (folder / image.file_name).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{folder}: lacks the annotated images {', '.join(missing[:3])}{more}")


def read_image(folder: Path, image: ImageFile) -> NDArray[np.uint8]:
    """Return the pixels of an image, uint8 (height, width, 3) in BGR.

    Raises:
        InputError: the file cannot be read, is damaged, or has another size than annotated.
    """
    import cv2

    path = folder / image.file_name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read ({error.strerror})") from error
    # OpenCV fills what a cut-off JPEG lacks with grey and says nothing: look for the end marker of its last scan.
    cut_off = data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data and not cut_off else None
    if pixels is None:
        raise InputError(f"{path}: the image is damaged. Fetch it again.")
    if pixels.shape[:2] != (image.height, image.width):
        raise InputError(
            f"{path}: the image has {pixels.shape[1]}x{pixels.shape[0]} pixels, but its annotation says "
            f"{image.width}x{image.height}"
        )
    return np.asarray(pixels, np.uint8)


def keypoint_sigmas() -> NDArray[np.float32]:
    """Return the falloff of OKS for each of COCO's keypoints, float32 (17,)."""
    return np.array(SIGMAS, np.float32)


def keypoint_names() -> list[str]:
    """Return the names of COCO's keypoints."""
    return list(KEYPOINTS)


def index_annotations(content: dict[str, Any]) -> COCO:
    """Return pycocotools' index of annotations, the content of a COCO file, without its chatter."""
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _require_fields(path: Path, kind: str, entries: Sequence[Any], fields: set[str]) -> None:
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not fields <= entry.keys():
            lacking = sorted(fields - entry.keys() if isinstance(entry, dict) else fields)
            name = f"id {entry['id']}" if isinstance(entry, dict) and "id" in entry else f"number {place}"
            raise InputError(f"{path}: {kind} {name} lacks {', '.join(lacking)}")
    if entries and "id" in fields:
        [(identifier, count)] = Counter(entry["id"] for entry in entries).most_common(1)
        if count > 1:
            raise InputError(f"{path}: {kind} id {identifier} appears {count} times")


def _require_sound_people(path: Path, people: Sequence[dict[str, Any]], image_ids: set[int]) -> None:
    for entry in people:
        if entry["image_id"] not in image_ids:
            raise InputError(f"{path}: annotation id {entry['id']} is of image {entry['image_id']}, which is not there")
        if len(entry["keypoints"]) != 3 * NUM_KEYPOINTS:
            raise InputError(
                f"{path}: annotation id {entry['id']} has {len(entry['keypoints']) / 3:g} keypoints; "
                f"people in COCO's format have {NUM_KEYPOINTS}"
            )
    _number_rows(path, [entry["bbox"] for entry in people], 4)
    _number_rows(path, [entry["keypoints"] for entry in people], 3 * NUM_KEYPOINTS)


def _number_rows(path: Path, rows: Sequence[Sequence[float]], length: int) -> NDArray[np.float64]:
    """Return `rows` as (N, length); `InputError` if one has another length or holds no finite numbers."""
    try:
        numbers = np.array(rows, np.float64).reshape(-1, length)
        if len(numbers) == len(rows) and np.isfinite(numbers).all():
            return numbers
    except (TypeError, ValueError):
        pass
    raise InputError(f"{path}: a box, score or keypoint is not made of finite numbers, {length} in a row")
