import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.evaluation_fixtures import Dataset, draw_dataset, make_model, mmpose_dataset

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.openmmlab import build_model, load_config
from posequant.data.calibration_set import choose_calibration_set, choose_people, make_crops
from posequant.data.crop_files import People
from posequant.data.dataset import ground_truth_instances, load_annotations


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("train"), seed=1, first_image=101)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("val"))


def test_no_image_gives_more_people_than_needed(training: Dataset) -> None:
    instances = ground_truth_instances(load_annotations(training.annotations))
    available = Counter(instances.image_ids.tolist())
    for count in range(1, len(instances) + 1):
        taken = Counter(instances.image_ids[choose_people(instances, count, seed=3)].tolist())
        most = max(taken.values())
        assert taken.total() == count
        assert all(taken[image] >= min(most - 1, people) for image, people in available.items())


def test_choice_follows_from_the_seed(training: Dataset) -> None:
    instances = ground_truth_instances(load_annotations(training.annotations))
    large = choose_people(instances, 8, seed=3)
    assert len(set(large.tolist())) == 8
    assert choose_people(instances, 8, seed=3).tolist() == large.tolist()
    assert choose_people(instances, 3, seed=3).tolist() == large[:3].tolist()
    assert any(choose_people(instances, 8, seed=seed).tolist() != large.tolist() for seed in range(3))


def test_choice_states_where_it_comes_from(training: Dataset, evaluation: Dataset) -> None:
    chosen = choose_calibration_set(training.annotations, evaluation.annotations, people=9, seed=5)
    assert chosen == choose_calibration_set(training.annotations, evaluation.annotations, people=9, seed=5)
    assert chosen["seed"] == 5
    assert chosen["annotations"]["sha256"] == sha256(training.annotations)
    assert chosen["evaluation"] == {
        "file": "annotations.json",
        "sha256": sha256(evaluation.annotations),
        "images": 6,
        "overlap": 0,
    }
    content = json.loads(training.annotations.read_text())
    annotated = {person["id"]: person for person in content["annotations"]}
    assert len(chosen["people"]) == 9
    assert chosen["images"] == 6
    for person in chosen["people"]:
        annotation = annotated[person["annotation_id"]]
        assert person["image"]["id"] == annotation["image_id"]
        assert annotation["num_keypoints"] > 0
        assert not annotation["iscrowd"]


def renumbered(dataset: Dataset, path: Path, **changes: Any) -> Path:
    """Annotations whose first image has some fields changed."""
    content = json.loads(dataset.annotations.read_text())
    before = content["images"][0]["id"]
    content["images"][0] |= changes
    for person in content["annotations"]:
        if person["image_id"] == before:
            person["image_id"] = content["images"][0]["id"]
    path.write_text(json.dumps(content))
    return path


def test_evaluation_images_are_refused_by_id_and_by_name(
    training: Dataset, evaluation: Dataset, tmp_path: Path
) -> None:
    same_id = renumbered(evaluation, tmp_path / "id.json", id=103)
    same_name = renumbered(evaluation, tmp_path / "name.json", file_name="000000000105.jpg")
    for annotations, image in ((same_id, 103), (same_name, 105)):
        with pytest.raises(InputError, match=f"1 chosen calibration images are evaluation images.*image ids {image}"):
            choose_calibration_set(training.annotations, annotations, people=9, seed=0)
    with pytest.raises(InputError, match="image ids 101, 102, 103, 104, 105, 106"):
        choose_calibration_set(training.annotations, training.annotations, people=9, seed=0)


def test_only_chosen_images_have_to_be_others(training: Dataset, evaluation: Dataset, tmp_path: Path) -> None:
    shared = renumbered(evaluation, tmp_path / "shared.json", id=103)
    outcomes = set()
    for seed in range(12):
        try:
            [person] = choose_calibration_set(training.annotations, shared, people=1, seed=seed)["people"]
            assert person["image"]["id"] != 103
            outcomes.add("chosen")
        except InputError:
            outcomes.add("refused")
    assert outcomes == {"chosen", "refused"}


def test_more_people_than_there_are_is_refused(training: Dataset, evaluation: Dataset) -> None:
    people = len(ground_truth_instances(load_annotations(training.annotations)))
    with pytest.raises(InputError, match=f"asked to choose {people + 1} people of {people}"):
        choose_calibration_set(training.annotations, evaluation.annotations, people=people + 1, seed=0)


def test_crops_are_what_mmpose_feeds_the_network(training: Dataset, evaluation: Dataset, tmp_path: Path) -> None:
    model = make_model(tmp_path, "msra")
    model.spec.save(tmp_path / "model.json")
    chosen = choose_calibration_set(training.annotations, evaluation.annotations, people=7, seed=0)
    (tmp_path / "calibration.json").write_text(json.dumps(chosen))
    folder = tmp_path / "crops"
    make_crops(tmp_path / "model.json", tmp_path / "calibration.json", training.images, folder)
    names = (folder / "list.txt").read_text().splitlines()
    assert names == [f"{number:06d}.npy" for number in range(7)]
    samples = {sample["data_samples"].id: sample for sample in mmpose_dataset(training, model)}
    network: Any = build_model(load_config(model.config), model.checkpoint)
    for name, person in zip(names, chosen["people"], strict=True):
        sample = samples[person["annotation_id"]]
        batch = network.data_preprocessor({"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]})
        tensor = np.load(folder / name)
        np.testing.assert_array_equal(tensor, batch["inputs"][0].numpy())
        assert tensor.dtype == np.float32
        assert tensor.flags.c_contiguous


def test_people_are_kept_beside_their_crops(training: Dataset, evaluation: Dataset, tmp_path: Path) -> None:
    from mmpose.datasets.transforms import GetBBoxCenterScale

    spec = make_model(tmp_path, "msra").spec
    spec.save(tmp_path / "model.json")
    chosen = choose_calibration_set(training.annotations, evaluation.annotations, people=7, seed=0)
    (tmp_path / "calibration.json").write_text(json.dumps(chosen))
    make_crops(tmp_path / "model.json", tmp_path / "calibration.json", training.images, tmp_path / "crops")
    people = People.load(tmp_path / "crops")
    content = json.loads(training.annotations.read_text())
    annotated = {person["id"]: person for person in content["annotations"]}
    instances = ground_truth_instances(load_annotations(training.annotations))
    row_of = {identifier: row for row, identifier in enumerate(instances.ids.tolist())}
    for number, person in enumerate(chosen["people"]):
        annotation = annotated[person["annotation_id"]]
        row = row_of[annotation["id"]]
        keypoints = np.array(annotation["keypoints"], np.float32).reshape(17, 3)
        framed: Any = GetBBoxCenterScale(padding=spec.padding).transform({"bbox": instances.bboxes[row : row + 1]})
        width, height = framed["bbox_scale"][0]
        # mmpose's TopdownAffine brings the frame to the aspect ratio of the network's input.
        ratio = spec.input_size[0] / spec.input_size[1]
        assert people.image_ids[number] == annotation["image_id"]
        np.testing.assert_array_equal(people.bboxes[number], instances.bboxes[row])
        np.testing.assert_array_equal(people.visible[number], keypoints[:, 2] > 0)
        np.testing.assert_array_equal(people.keypoints[number], keypoints[:, :2])
        np.testing.assert_allclose(people.centers[number], framed["bbox_center"][0])
        np.testing.assert_allclose(
            people.scales[number], [max(width, height * ratio), max(height, width / ratio)], 1e-6
        )
        assert people.areas[number] == pytest.approx(annotation["area"])


def test_inputs_of_crops_are_checked(training: Dataset, evaluation: Dataset, tmp_path: Path) -> None:
    model = make_model(tmp_path, "msra")
    model.spec.save(tmp_path / "model.json")
    calibration = tmp_path / "calibration.json"
    for content in ("[]", '{"people": []}', '{"people": [{"bbox": [1, 2]}]}', '{"people": [7]}', '{"people": "x"}'):
        calibration.write_text(content)
        with pytest.raises(InputError, match=r"calibration\.json: not a calibration set"):
            make_crops(tmp_path / "model.json", calibration, training.images, tmp_path / "crops")
    chosen = choose_calibration_set(training.annotations, evaluation.annotations, people=2, seed=0)
    calibration.write_text(json.dumps(chosen))
    with pytest.raises(InputError, match="lacks the annotated images 0000000001"):
        make_crops(tmp_path / "model.json", calibration, evaluation.images, tmp_path / "crops")
