"""The people by whom activation scales are chosen."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posequant import __version__
from posequant.base.errors import InputError
from posequant.base.files import read_json, sha256
from posequant.base.keypoints import KeypointSet
from posequant.base.model_spec import ModelSpec
from posequant.data import coco_format
from posequant.data.crop_files import People
from posequant.data.crops import Cropper
from posequant.data.dataset import (
    Annotations,
    ImageFile,
    Instances,
    ground_truth_instances,
    load_annotations,
    read_image,
    require_images,
    say_notices,
)

_REMAKE = "Delete it and run again."


def choose_people(instances: Instances, count: int, seed: int) -> NDArray[np.int64]:
    """Return the indices of `count` people, chosen at random, spread over the images.

    Nobody is taken as the second person of an image before every image has given its first; so for the third, and so
    on. The first people of a larger choice are a smaller choice with the same seed.

    Raises:
        InputError: there are fewer people than asked for.
    """
    if count > len(instances):
        raise InputError(f"asked to choose {count} people of {len(instances)}; ask for fewer, or give more images")
    order = np.random.default_rng(seed).permutation(len(instances))
    taken: dict[int, int] = {}
    rounds = []
    for image in instances.image_indices[order].tolist():
        rounds.append(taken.get(image, 0))
        taken[image] = rounds[-1] + 1
    return order[np.argsort(rounds, kind="stable")][:count]


def choose_calibration_set(
    annotations: Path, evaluation_annotations: Path, people: int, seed: int, keypoints: KeypointSet | None = None
) -> dict[str, Any]:
    """Choose the people to calibrate on; return the content of `calibration.json`.

    They pass the filters of `ground_truth_instances`, which the people of the evaluation pass too.

    Args:
        annotations: COCO keypoint annotations of the training split.
        evaluation_annotations: those of the split that is evaluated on.
        people: how many to choose.
        seed: of the random choice.
        keypoints: what people must have, as for `load_annotations`.

    Raises:
        InputError: a file is missing or damaged, there are too few people, or an image that was chosen is one of the
            evaluation images, by its id or its file name.
    """
    annotated = load_annotations(annotations, keypoints)
    training = ground_truth_instances(annotated)
    say_notices(training)
    return record_choice(
        "calibration",
        choose_people(training, people, seed),
        training=training,
        annotated=annotated,
        evaluation=load_annotations(evaluation_annotations, annotated.keypoints),
        seed=seed,
    )


def record_choice(
    purpose: str,
    places: NDArray[np.int64],
    *,
    training: Instances,
    annotated: Annotations,
    evaluation: Annotations,
    seed: int,
) -> dict[str, Any]:
    """Return what is written of chosen people, for `load_people`.

    Args:
        purpose: of the choice, in a word, for messages.
        places: of the chosen among the people of the training split.
        training: these people.
        annotated: the annotations that they are from.
        evaluation: those of the split that is evaluated on.
        seed: of the random choice.

    Raises:
        InputError: an image that was chosen is one of the evaluation images, by its id or its file name.
    """
    chosen = training.select(places)
    images = [chosen.images[index] for index in chosen.image_indices]
    _require_disjoint(purpose, images, evaluation.images)
    annotations_of = annotated.coco.anns
    return {
        "posequant": __version__,
        "seed": seed,
        "annotations": {"file": annotated.path.name, "sha256": sha256(annotated.path), "people": len(training)},
        "evaluation": {
            "file": evaluation.path.name,
            "sha256": sha256(evaluation.path),
            "images": len(evaluation.images),
            "overlap": 0,
        },
        "images": len(set(images)),
        "people": [
            {
                "annotation_id": int(identifier),
                "bbox": bbox.tolist(),
                "keypoints": annotations_of[int(identifier)]["keypoints"],
                "area": annotations_of[int(identifier)]["area"],
                "image": asdict(image),
            }
            for identifier, bbox, image in zip(chosen.ids, chosen.bboxes, images, strict=True)
        ],
    }


def make_crops(model: Path, calibration: Path, images: Path, folder: Path) -> None:
    """Write the network's input for each person of a calibration set.

    Args:
        model: the model description, `model.json`.
        calibration: what `choose_calibration_set` chose, `calibration.json`.
        images: folder of the images.
        folder: where to write; it is created. `000000.npy` and so on, in the order of the people, hold the normalised
            crops, float32 (3, H, W) in C order; `list.txt` has their names, one a line; `people.npz` says whose
            they are and where they lie in their images (`People`).

    Raises:
        InputError: an input is missing or damaged.
    """
    spec = ModelSpec.load(model)
    people = load_people(calibration, len(spec.keypoints))
    require_images(images, [person.image for person in people])
    cropper = Cropper(spec)
    folder.mkdir(parents=True)
    names, centers, scales = [], [], []
    for number, person in enumerate(tqdm(people, desc="cropping", unit="person", mininterval=2)):
        crop, center, scale = cropper.cut(read_image(images, person.image), person.bbox)
        names.append(f"{number:06d}.npy")
        np.save(folder / names[-1], cropper.normalise(crop[np.newaxis])[0])
        centers.append(center)
        scales.append(scale)
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in names))
    keypoints = np.stack([person.keypoints for person in people])
    People(
        image_ids=np.array([person.image.id for person in people], np.int64),
        bboxes=np.stack([person.bbox for person in people]),
        centers=np.stack(centers),
        scales=np.stack(scales),
        keypoints=keypoints[..., :2],
        visible=keypoints[..., 2] > 0,
        areas=np.array([person.area for person in people], np.float32),
    ).save(folder)


@dataclass(frozen=True)
class Person:
    """A person of a calibration set.

    Attributes:
        image: the image.
        bbox: float32 (4,); left, top, right, bottom in pixels.
        keypoints: float32 (K, 3); x and y in pixels, and 0 where they are not annotated.
        area: in square pixels.
    """

    image: ImageFile
    bbox: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    area: float


def load_people(calibration: Path, keypoints: int | None = None) -> list[Person]:
    """Read the people of a `calibration.json`.

    Args:
        calibration: the file.
        keypoints: how many each of them must have; without, as many as the first.

    Raises:
        InputError: the file is missing or not a calibration set.
    """
    content = read_json(calibration)
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list) or not people:
        raise InputError(f"{calibration}: not a calibration set. {_REMAKE}")
    try:
        coco_format.check_entries(calibration, "person", people[:1], coco_format.CalibrationPerson, keypoints=keypoints)
        count = len(people[0]["keypoints"]) // 3
        coco_format.check_entries(calibration, "person", people, coco_format.CalibrationPerson, keypoints=count)
    except InputError as error:
        raise InputError(f"{calibration}: not a calibration set ({error}). {_REMAKE}") from error
    return [
        Person(
            ImageFile(*(person["image"][name] for name in ImageFile.__annotations__)),
            np.array(person["bbox"], np.float32),
            np.array(person["keypoints"], np.float32).reshape(-1, 3),
            float(person["area"]),
        )
        for person in people
    ]


def _require_disjoint(purpose: str, chosen: list[ImageFile], evaluation: tuple[ImageFile, ...]) -> None:
    ids = {image.id for image in evaluation}
    names = {image.file_name for image in evaluation}
    shared = sorted({image.id for image in chosen if image.id in ids or image.file_name in names})
    if shared:
        raise InputError(
            f"{len(shared)} chosen {purpose} images are evaluation images, by their id or file name: image ids "
            f"{', '.join(map(str, shared[:10]))}{', ...' if len(shared) > 10 else ''}. Give other training images."
        )
