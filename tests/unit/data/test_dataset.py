import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.unit.evaluation_fixtures import Dataset, draw_dataset, mmpose_dataset

from posequant.base.errors import InputError
from posequant.base.keypoints import KEYPOINTS
from posequant.data.dataset import (
    ImageFile,
    Instances,
    detected_instances,
    ground_truth_instances,
    load_annotations,
    read_image,
    require_images,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


def assert_same_people(found: Instances, folder: Path, reference: Any) -> None:
    assert found.ids.tolist() == [sample["id"] for sample in reference]
    assert found.image_ids.tolist() == [sample["img_id"] for sample in reference]
    paths = [str(folder / found.images[index].file_name) for index in found.image_indices]
    assert paths == [sample["img_path"] for sample in reference]
    np.testing.assert_array_equal(found.bboxes, np.concatenate([sample["bbox"] for sample in reference]))
    np.testing.assert_array_equal(found.bbox_scores, np.concatenate([sample["bbox_score"] for sample in reference]))
    assert found.bboxes.dtype == found.bbox_scores.dtype == np.float32


def test_annotated_people_are_those_of_mmpose(dataset: Dataset) -> None:
    annotations = load_annotations(dataset.annotations)
    found = ground_truth_instances(annotations)
    assert_same_people(found, dataset.images, mmpose_dataset(dataset))
    assert 0 < len(found) == len(annotations.coco.anns) - 4  # the four that the drawing spoils


def test_detected_people_are_those_of_mmpose(dataset: Dataset) -> None:
    found = detected_instances(load_annotations(dataset.annotations), dataset.detections)
    assert_same_people(found, dataset.images, mmpose_dataset(dataset, detections=True))


def test_boxes_without_extent_or_in_other_images_are_left_out(dataset: Dataset, tmp_path: Path) -> None:
    box = {"category_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}
    path = tmp_path / "detections.json"
    detections = [box | {"image_id": 99}, box | {"image_id": 1, "bbox": [1, 1, 0, 9]}, box | {"image_id": 2}]
    path.write_text(json.dumps(detections))
    found = detected_instances(load_annotations(dataset.annotations), path)
    assert found.ids.tolist() == [2]
    assert found.bboxes.tolist() == [[1, 2, 4, 6]]
    assert found.notices == (
        f"{path}: 1 of 3 boxes of people are left out: {dataset.annotations} has no image 99",
        f"{path}: 1 of 3 boxes of people are left out, as they have no width or height: "
        "numbers 1 of the people, from 0",
    )
    path.write_text(json.dumps(detections[:2]))
    with pytest.raises(InputError, match=r"no box of a person in an image of .*annotations\.json"):
        detected_instances(load_annotations(dataset.annotations), path)


def test_annotations_of_other_things_are_ignored(dataset: Dataset, tmp_path: Path) -> None:
    content = json.loads(dataset.annotations.read_text())
    content["categories"].append({"id": 2, "name": "dog"})
    content["annotations"].insert(3, {"id": 7, "image_id": 1, "category_id": 2, "bbox": [1, 2, 30, 40]})
    path = tmp_path / "with_dogs.json"
    path.write_text(json.dumps(content))
    found, expected = (
        ground_truth_instances(load_annotations(file)).ids.tolist() for file in (path, dataset.annotations)
    )
    assert found == expected


NULL = object()
"""Stands for null where None stands for a key that is left out."""
SWAPPED = [*KEYPOINTS[:1], KEYPOINTS[2], KEYPOINTS[1], *KEYPOINTS[3:]]


def spoiled(content: Any, path: list[str | int], value: Any) -> Any:
    content = json.loads(json.dumps(content))
    inner = content
    for step in path[:-1]:
        inner = inner[step]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = None if value is NULL else value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["images"], None, "not a COCO annotation file"),
        (["images"], [], "is of image 1, which is not there"),
        (["images", 2, "width"], None, "image id 3 lacks width"),
        (["images", 1, "id"], 1, "image id 1 appears 2 times"),
        (["annotations"], [{"id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}], "person_keypoints file"),
        (["annotations", 5], "x", "annotation number 5 is 'x', not a mapping"),
        (["annotations", 5], [[]], "annotation number 5 is .*, not a mapping"),
        (["annotations", 5, "category_id"], None, "annotation id 1005 lacks category_id"),
        (["annotations", 5, "keypoints"], None, "annotation id 1005 lacks keypoints"),
        (["annotations", 0, "area"], None, "annotation id 1000 lacks area"),
        (["annotations", 3, "id"], 1001, "annotation id 1001 appears 2 times"),
        (["annotations", 3, "image_id"], 77, "annotation id 1003 is of image 77"),
        (["annotations", 2, "keypoints"], [1, 2, 2], "annotation id 1002 has 1 keypoints"),
        (["annotations", 2, "category_id"], 5, "keypoints of 2 categories"),
        (["images", 0, "id"], "1", "image number 0: id is '1'; it should be a valid integer"),
        (["images", 0, "id"], [1], r"image number 0: id is \[1\]; it should be a valid integer"),
        (["images", 0, "id"], 2**63, "image id 9223372036854775808: id is"),
        (["images", 0, "width"], NULL, "image id 1: width is None; it should be a valid integer"),
        (["images", 0, "height"], 0, "image id 1: height is 0; it should be greater"),
        (["images", 0, "width"], 199.5, "image id 1: width is 199.5; it should be a valid integer"),
        (["images", 0], {"id": 1, "file_name": "x", "width": 40000, "height": 40000}, "image id 1: 40000x40000 pixels"),
        (["images", 0, "file_name"], "../1.jpg", r"image id 1: file_name '../1.jpg' leads out of the folder"),
        (["images", 0, "file_name"], "a/../../1.jpg", "leads out of the folder"),
        (["images", 0, "file_name"], "/etc/passwd", "leads out of the folder"),
        (["images", 0, "file_name"], "..\\1.jpg", "leads out of the folder"),
        (["images", 0, "file_name"], "x" * 256, "longer than the name of a file may be"),
        (["images", 0, "file_name"], "d/" * 600 + "x", "longer than the name of a file may be"),
        (["images", 0, "file_name"], "", "is no name of a file"),
        (["images", 0, "file_name"], "a\0b", "is no name of a file"),
        (["images", 0, "file_name"], "\ud800.jpg", "image id 1: file_name"),
        (["images", 0, "file_name"], 7, "image id 1: file_name is 7; it should be a valid string"),
        (["annotations", 2, "id"], "1002", "annotation number 2: id is '1002'"),
        (["annotations", 2, "id"], 0, "annotation id 0: id is 0; it should be greater than or equal to 1"),
        (["annotations", 2, "id"], 2**63, "id is 9223372036854775808; it should be less than 9223372036854775808"),
        (["annotations", 2, "image_id"], [1], r"annotation id 1002: image_id is \[1\]"),
        (["annotations", 2, "category_id"], [], r"annotation id 1002: category_id is \[\]"),
        (["annotations", 2, "bbox"], NULL, "annotation id 1002: bbox is None; it should be a valid list"),
        (["annotations", 2, "bbox"], [1, 2, 3, float("nan")], r"bbox\[3\] is nan; it should be a finite number"),
        (["annotations", 2, "bbox"], [1, 2, 3, 1e300], r"bbox\[3\] is 1e\+300; it should be less"),
        (["annotations", 2, "bbox"], [1, 2, 3], "bbox has 3 numbers, not 4"),
        (["annotations", 2, "bbox", 1], True, r"bbox\[1\] is True; it should be a valid number"),
        (["annotations", 2, "keypoints"], NULL, "annotation id 1002: keypoints is None"),
        (["annotations", 2, "keypoints", 4], "x", r"keypoints\[4\] is 'x'; it should be a valid number"),
        (["annotations", 2, "keypoints", 4], "7", r"keypoints\[4\] is '7'; it should be a valid number"),
        (["annotations", 2, "keypoints", 3], float("inf"), r"keypoints\[3\] is inf; it should be a finite number"),
        (["annotations", 2, "keypoints", 5], 0.9, "each third number of keypoints should be 0, 1 or 2"),
        (["annotations", 2, "num_keypoints"], 0, r"num_keypoints is 0, but \d+ keypoints are labelled"),
        (["annotations", 4, "num_keypoints"], 5, "num_keypoints is 5, but 0 keypoints are labelled"),
        (["annotations", 2, "num_keypoints"], NULL, "num_keypoints is None; it should be a valid integer"),
        (["annotations", 2, "iscrowd"], "no", "annotation id 1002: iscrowd is 'no'"),
        (["annotations", 2, "iscrowd"], 7, "annotation id 1002: iscrowd is 7"),
        (["annotations", 2, "area"], float("nan"), "annotation id 1002: area is nan; it should be a finite number"),
        (["annotations", 2, "area"], 0, "annotation id 1002: area is 0; it should be that of the person"),
        (["annotations", 2, "area"], -5, "annotation id 1002: area is -5; it should be greater"),
        (["annotations", 2, "area"], 1e9, r"annotation id 1002: area is 1e\+09, more than its image and its box have"),
        (["categories", 0, "keypoints"], SWAPPED, "category 1 has the keypoints in another order than COCO's"),
        (["annotations", 2, "area"], 1e11, r"area is 100000000000.0; it should be less"),
        (["annotations", 2, "area"], NULL, "annotation id 1002: area is None"),
        (["annotations", 2, "area"], "600", "annotation id 1002: area is '600'"),
    ],
)
def test_incomplete_annotations_are_refused(
    dataset: Dataset, tmp_path: Path, path: list[str | int], value: Any, message: str
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(spoiled(json.loads(dataset.annotations.read_text()), path, value)))
    with pytest.raises(InputError, match=f"broken.json.*{message}"):
        load_annotations(broken)


def test_unreadable_annotations_and_detections_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        load_annotations(tmp_path / "none.json")
    cut = tmp_path / "cut.json"
    cut.write_text(dataset.annotations.read_text()[:500])
    with pytest.raises(InputError, match=r"cut\.json: not valid JSON .*\. Mend it, or fetch it again\.$"):
        load_annotations(cut)
    annotations = load_annotations(dataset.annotations)
    with pytest.raises(InputError, match=r"annotations\.json: not COCO detection results"):
        detected_instances(annotations, dataset.annotations)
    cut.write_text('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]')
    with pytest.raises(InputError, match=r"cut\.json: detection number 0 lacks score"):
        detected_instances(annotations, cut)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": "1"}, "image_id is '1'; it should be a valid integer"),
        ({"image_id": [1]}, r"image_id is \[1\]"),
        ({"image_id": 2**63}, "image_id is 9223372036854775808; it should be less"),
        ({"category_id": None}, "category_id is None"),
        ({"bbox": None}, "bbox is None; it should be a valid list"),
        ({"bbox": [1, 2, 3]}, "bbox has 3 numbers, not 4"),
        ({"bbox": [1, 2, 3, "4"]}, r"bbox\[3\] is '4'; it should be a valid number"),
        ({"bbox": [1, 2, 1e300, 4]}, r"bbox\[2\] is 1e\+300; it should be less"),
        ({"bbox": [float("nan"), 2, 3, 4]}, r"bbox\[0\] is nan; it should be a finite number"),
        ({"score": float("nan")}, "score is nan; it should be a finite number"),
        ({"score": -0.1}, "score is -0.1; it should be greater"),
        ({"score": 1e300}, r"score is 1e\+300; it should be less"),
        ({"score": "high"}, "score is 'high'"),
    ],
)
def test_unsound_detections_are_refused(
    dataset: Dataset, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    box = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}
    path = tmp_path / "broken.json"
    path.write_text(json.dumps([box, box | changes]))
    with pytest.raises(InputError, match=f"broken.json: detection number 1.*{message}"):
        detected_instances(load_annotations(dataset.annotations), path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"images": ' * 2000, '{"images": [' + "9" * 5000 + "]}", "[" * 900 + "]" * 900]
)
def test_what_python_cannot_parse_is_refused(dataset: Dataset, tmp_path: Path, text: str) -> None:
    path = tmp_path / "deep.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"deep\.json: not "):
        load_annotations(path)
    with pytest.raises(InputError, match=r"deep\.json"):
        detected_instances(load_annotations(dataset.annotations), path)


def test_nothing_but_what_was_checked_is_handed_on(dataset: Dataset, tmp_path: Path) -> None:
    """What pycocotools copies and looks up would fail at these."""
    content = json.loads(dataset.annotations.read_text())
    content |= {"info": json.loads("[" * 400 + "]" * 400), "categories": ["person", {}, None]}
    content["annotations"][0] |= {"segmentation": 7, "ignore": "x", "_ignore": [], "keypoint_names": {}}
    content["annotations"].append({"id": 5, "category_id": 2, "image_id": [], "bbox": "none"})
    path = tmp_path / "more.json"
    path.write_text(json.dumps(content))
    annotations, plain = load_annotations(path), load_annotations(dataset.annotations)
    assert annotations.coco.dataset == plain.coco.dataset


def test_people_left_out_by_a_mistake_are_named(dataset: Dataset, tmp_path: Path) -> None:
    assert ground_truth_instances(load_annotations(dataset.annotations)).notices == (
        f"{dataset.annotations}: 2 of {len(ground_truth_instances(load_annotations(dataset.annotations))) + 2} people "
        "with keypoints are left out, and count as missed where they are evaluated on: their box is empty or outside "
        "the image, or no keypoint is inside: annotation ids 1006, 1008",
    )
    content = json.loads(dataset.annotations.read_text())
    people = [entry for entry in content["annotations"] if entry["num_keypoints"] and not entry["iscrowd"]]
    for entry in people[:3]:
        entry["bbox"][2] = 0
    content["images"][-1]["width"] = 1
    path = tmp_path / "mistakes.json"
    path.write_text(json.dumps(content))
    annotations = load_annotations(path)
    found = ground_truth_instances(annotations)
    (notice,) = found.notices
    lost = [entry["id"] for entry in people if entry["id"] not in found.ids]
    assert content["images"][-1]["id"] not in found.image_ids
    assert len(lost) > 5
    assert f"{len(lost)} of {len(people)} people with keypoints are left out" in notice
    first, *_ = found.select(np.array([0])).notices
    assert first == notice
    said = notice.rpartition("annotation ids ")[2]
    assert said == f"{', '.join(map(str, lost[:3]))} and {len(lost) - 3} more"


def test_people_that_coco_leaves_out_are_no_mistake(dataset: Dataset, tmp_path: Path) -> None:
    content = json.loads(dataset.annotations.read_text())
    for entry in content["annotations"]:
        if entry["id"] in (1006, 1008):
            entry["iscrowd"] = 1
    path = tmp_path / "sound.json"
    path.write_text(json.dumps(content))
    assert ground_truth_instances(load_annotations(path)).notices == ()


def test_nobody_to_evaluate_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    content = json.loads(dataset.annotations.read_text())
    for person in content["annotations"]:
        person["iscrowd"] = 1
    path = tmp_path / "crowds.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"crowds\.json: no person"):
        ground_truth_instances(load_annotations(path))


def test_missing_images_are_named(dataset: Dataset, tmp_path: Path) -> None:
    images = load_annotations(dataset.annotations).images
    require_images(dataset.images, images)
    with pytest.raises(InputError, match=r"lacks .* 000000000001\.jpg, .* and 3 more"):
        require_images(tmp_path, images)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_image_is_read_only_if_whole(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = ImageFile(1, f"image{suffix}", 60, 40)
    path = tmp_path / image.file_name
    cv2.imwrite(str(path), pixels)
    np.testing.assert_array_equal(read_image(tmp_path, image), cv2.imread(str(path)))
    with pytest.raises(InputError, match="has 60x40 pixels, but its annotation says 40x60"):
        read_image(tmp_path, ImageFile(1, image.file_name, 40, 60))
    data = path.read_bytes()
    for damaged in (data[: len(data) * 2 // 3], data[:200], b"no image", b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"image\{suffix}: the image is damaged"):
            read_image(tmp_path, image)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path, image)
