"""A subset of an evaluation set: a quick answer before the full one."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import read_json, sha256
from posequant.base.keypoints import KeypointSet
from posequant.data.dataset import SUBSET_KEY, Instances, Subset, ground_truth_instances, load_annotations


def choose_images(instances: Instances, people: int, seed: int) -> NDArray[np.int64]:
    """Return the indices of images, chosen at random, that hold at least `people` of the annotated people.

    Whole images are chosen, as people and detections are matched image by image. They are taken from all images, in an
    order that the seed gives, until there are enough people. Images without people are among them: what is detected
    there counts as wrong, so AP over the chosen images estimates that over all. The order depends on the ids of the
    images, not on their order in the file. A choice of more people with the same seed holds that of fewer.

    Args:
        instances: the annotated people of the whole evaluation set, `ground_truth_instances`.
        people: how many are wanted.
        seed: of the order.

    Returns:
        int64 (M,), ascending.

    Raises:
        InputError: there are fewer people than asked for.
    """
    if people < 1:
        raise InputError(f"people: {people} are no evaluation set; ask for at least 1")
    if people > len(instances):
        raise InputError(
            f"people: {people} of the evaluation set are asked for, but it has {len(instances)}. Ask for fewer, or for "
            "all: leave out the key `people` of the dataset's `val`, and --config people=..."
        )
    by_id = np.argsort([image.id for image in instances.images])
    order = by_id[np.random.default_rng(seed).permutation(len(by_id))]
    held = np.cumsum(np.bincount(instances.image_indices, minlength=len(order))[order])
    return np.sort(order[: np.searchsorted(held, people) + 1])


def choose_evaluation_people(
    annotations: Path, people: int, seed: int, keypoints: KeypointSet | None = None
) -> dict[str, Any]:
    """Return annotations in COCO's format, of chosen images only: all that the file says of them, in its order.

    With them, a step evaluates the chosen images as it would a small dataset. `SUBSET_KEY` says how they were chosen.

    Args:
        annotations: COCO keypoint annotations of the whole evaluation set.
        people: how many annotated people the images must hold.
        seed: of the random choice.
        keypoints: what people must have, as for `load_annotations`.

    Raises:
        InputError: the file is missing or damaged, is a subset itself, or has too few people.
    """
    annotated = load_annotations(annotations, keypoints)
    if annotated.subset:
        raise InputError(f"{annotations}: is a subset already, of {annotated.subset.people} people. Give that of all.")
    chosen = {annotated.images[index].id for index in choose_images(ground_truth_instances(annotated), people, seed)}
    subset = Subset(people=people, seed=seed, images=len(annotated.images), sha256=sha256(annotations))
    content: dict[str, Any] = read_json(annotations)
    return content | {
        SUBSET_KEY: asdict(subset),
        "images": [image for image in content["images"] if image["id"] in chosen],
        "annotations": [entry for entry in content["annotations"] if entry.get("image_id") in chosen],
    }
