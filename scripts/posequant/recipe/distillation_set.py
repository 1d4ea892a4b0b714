"""The people on whose crops an INT8 network is tuned to its float network, without their labels."""

from pathlib import Path
from typing import Any

import numpy as np

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.keypoints import KeypointSet
from posequant.data.calibration_set import choose_people, load_people, record_choice
from posequant.data.dataset import ground_truth_instances, load_annotations
from posequant.recipe.parts import split


def choose_distillation_set(
    annotations: Path,
    evaluation_annotations: Path,
    calibration: Path,
    people: int,
    *,
    seed: int,
    keypoints: KeypointSet | None = None,
) -> dict[str, Any]:
    """Choose the people to distill on; return what is written of them, in the form of `calibration.json`.

    They are the first of the order in which calibration people of the seed are chosen, without those in images of the
    calibration people who decide or tell (`split`). Those that the steps of a recipe see may be among them.

    Args:
        annotations: COCO keypoint annotations of the training split.
        evaluation_annotations: those of the split that is evaluated on.
        calibration: the people to calibrate on, `calibration.json`.
        people: how many to choose; all where there are fewer.
        seed: of the random choice.
        keypoints: what people must have, as for `load_annotations`.

    Raises:
        InputError: a file is missing or damaged, nobody is left to choose, or an image that was chosen is one of the
            evaluation images, by its id or its file name.
    """
    annotated = load_annotations(annotations, keypoints)
    training = ground_truth_instances(annotated)
    calibrated = load_people(calibration)
    parts = split(np.array([person.image.id for person in calibrated], np.int64))
    kept_out = {calibrated[place].image for part in (parts.deciding, parts.telling) for place in part}
    ids, names = {image.id for image in kept_out}, {image.file_name for image in kept_out}
    allowed = np.array([image.id not in ids and image.file_name not in names for image in training.images])
    order = choose_people(training, len(training), seed)
    chosen = order[allowed[training.image_indices[order]]][:people]
    if not len(chosen):
        raise InputError(
            f"{annotations}: nobody is left to distill on: all people are in images of calibration people who decide "
            "or tell the outcome. Calibrate on fewer people, or give more training images."
        )
    evaluation = load_annotations(evaluation_annotations, annotated.keypoints)
    record = record_choice(
        "distillation", chosen, training=training, annotated=annotated, evaluation=evaluation, seed=seed
    )
    return record | {"calibration": {"sha256": sha256(calibration), "images_kept_out": len(kept_out), "overlap": 0}}
