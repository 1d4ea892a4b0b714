"""Annotations, detections, predictions and archives with a few changes: read, or refused by an `InputError`.

What is read goes all the way that a study takes it, pycocotools included.
"""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.evaluation_fixtures import Dataset, identity_of
from tests.unit.fuzzing import fuzz
from tests.unit.mutations import mutated_bytes, mutated_tree, read_or_refused

from posequant.base.files import sha256
from posequant.base.measures import STATISTICS
from posequant.data.calibration_set import choose_calibration_set, load_people
from posequant.data.dataset import Instances, evaluation_instances
from posequant.evaluate.keypoint_metrics import evaluate_predictions
from posequant.evaluate.predictions import Poses, Predictions, merge_predictions
from posequant.fetch.calibration_images import image_addresses
from posequant.fetch.unpack import unpack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzing")


def small() -> dict[str, Any]:
    """Two images, three people and a dog."""
    person = {
        "category_id": 1,
        "bbox": [10.5, 20, 30, 40],
        "area": 700.5,
        "iscrowd": 0,
        "num_keypoints": 17,
        "keypoints": [15, 30, 2] * 17,
    }
    nobody = person | {"id": 3, "image_id": 2, "num_keypoints": 0, "keypoints": [0] * 51}
    return {
        "info": {"year": 2017},
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": 80, "height": 90, "coco_url": "http://h/1.jpg"}
            for number in (1, 2)
        ],
        "annotations": [
            person | {"id": 1, "image_id": 1},
            person | {"id": 2, "image_id": 2, "bbox": [40, 10, 20, 70]},
            nobody,
            {"id": 4, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
    }


DETECTIONS = [
    {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9},
    {"image_id": 2, "category_id": 1, "bbox": [40, 10, 20, 70.5], "score": 0.5},
    {"image_id": 2, "category_id": 2, "bbox": [0, 0, 1, 1], "score": 1},
]


def write(path: Path, content: Any) -> Path:
    """Write what JSON can hold of it."""
    path.write_text(json.dumps(content, default=repr, skipkeys=True))
    return path


def predicted(people: Instances, annotations: Path, detections: Path | None) -> Predictions:
    count = len(people)
    poses = Poses(
        keypoints=np.tile(people.bboxes[:, np.newaxis, :2], (1, 17, 1)),
        keypoint_scores=np.ones((count, 17), np.float32),
        centers=people.bboxes[:, :2],
        scales=np.ones((count, 2), np.float32),
    )
    dataset = Dataset(annotations.parent, annotations, annotations)
    boxes = {"boxes": "detections" if detections else "ground-truth", "flip_test": False}
    identity = identity_of(dataset, count, protocol=boxes)
    identity["sha256"]["detections"] = sha256(detections) if detections else None
    return Predictions(people.ids, people.image_ids, people.bboxes, people.bbox_scores, poses, identity)


def evaluate(folder: Path, annotations: Path, detections: Path | None) -> None:
    """Take the way from annotations to figures, all but the network."""
    people = evaluation_instances(annotations, detections)
    # Nothing after this may be refused.
    shard, merged = folder / "shard.npz", folder / "merged.npz"
    try:
        predicted(people, annotations, detections).save(shard)
        merge_predictions([shard], annotations, detections).save(merged)
        metrics, _ = evaluate_predictions(merged, annotations)
    except Exception as error:
        raise AssertionError("refused or failed only after the annotations were read") from error
    assert metrics["statistics"].keys() == set(STATISTICS)
    assert all(value is None or 0 <= value <= 1 for value in metrics["statistics"].values())
    json.dumps(metrics, allow_nan=False)


@fuzz
@given(content=mutated_tree(small()))
def test_annotations(folder: Path, content: dict[str, Any]) -> None:
    annotations = write(folder / "annotations.json", content)
    read_or_refused(lambda: evaluate(folder, annotations, None))


@fuzz
@given(content=mutated_tree(small()))
def test_annotations_to_calibrate_on(folder: Path, content: dict[str, Any]) -> None:
    annotations, calibration = write(folder / "training.json", content), folder / "calibration.json"
    other = small()
    for image in other["images"]:
        image["id"] += 10
        image["file_name"] = f"other {image['file_name']}"
    for entry in other["annotations"]:
        entry["image_id"] += 10
    evaluation = write(folder / "evaluation.json", other)

    def read() -> None:
        write(calibration, choose_calibration_set(annotations, evaluation, people=1, seed=0))
        load_people(calibration)
        image_addresses(calibration, annotations)

    read_or_refused(read)


@fuzz
@given(content=mutated_tree({"detections": DETECTIONS}))
def test_detections(folder: Path, content: dict[str, Any]) -> None:
    annotations = write(folder / "sound.json", small())
    detections = write(folder / "detections.json", content.get("detections"))
    read_or_refused(lambda: evaluate(folder, annotations, detections))


@fuzz
@given(data=st.data())
def test_bytes_of_json(folder: Path, data: st.DataObject) -> None:
    text = json.dumps(small()).encode()
    path = folder / "bytes.json"
    path.write_bytes(data.draw(mutated_bytes(text)))
    read_or_refused(lambda: evaluate(folder, path, None))


@fuzz
@given(data=st.data())
def test_bytes_of_predictions(folder: Path, data: st.DataObject) -> None:
    annotations, path = write(folder / "sound.json", small()), folder / "predictions.npz"
    whole = folder / "whole.npz"
    if not whole.exists():
        predicted(evaluation_instances(annotations, None), annotations, None).save(whole)
    path.write_bytes(data.draw(mutated_bytes(whole.read_bytes())))
    read_or_refused(lambda: evaluate_predictions(path, annotations))


IDENTITY = identity_of(Dataset(Path(), Path(__file__), Path()), people=2)


@fuzz
@given(content=mutated_tree(IDENTITY))
def test_identity_of_predictions(folder: Path, content: dict[str, Any]) -> None:
    annotations, path = write(folder / "sound.json", small()), folder / "predictions.npz"
    people = evaluation_instances(annotations, None)
    if isinstance(content.get("sha256"), dict) and content["sha256"].get("annotations") == sha256(Path(__file__)):
        content["sha256"]["annotations"] = sha256(annotations)
    identity = json.loads(json.dumps(content, default=repr, skipkeys=True))
    replace(predicted(people, annotations, None), identity=identity).save(path)
    read_or_refused(lambda: evaluate_predictions(path, annotations))
    read_or_refused(lambda: merge_predictions([path], annotations, None))


@fuzz
@given(data=st.data(), number=st.integers(0, 10**9))
def test_bytes_of_archives(folder: Path, data: st.DataObject, number: int) -> None:
    whole, path = folder / "whole.zip", folder / "file.zip"
    if not whole.exists():
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as writer:
            for name in ("val/1.jpg", "val/sub/2.jpg", "other"):
                writer.writestr(name, name * 5)
    path.write_bytes(data.draw(mutated_bytes(whole.read_bytes())))
    read_or_refused(lambda: unpack(path, "val", folder / str(number)))
