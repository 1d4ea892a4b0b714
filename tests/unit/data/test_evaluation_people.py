"""Whom a subset of an evaluation set holds, and what it says of itself."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from tests.unit.evaluation_fixtures import Dataset, draw_dataset

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.data.dataset import (
    Instances,
    Subset,
    detected_instances,
    evaluation_instances,
    ground_truth_instances,
    load_annotations,
)
from posequant.data.evaluation_people import choose_evaluation_people, choose_images


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("val"), count=12)


@pytest.fixture(scope="module")
def everyone(drawn: Dataset) -> Instances:
    return ground_truth_instances(load_annotations(drawn.annotations))


def write_subset(drawn: Dataset, folder: Path, people: int, seed: int = 0) -> Path:
    path = folder / f"{people}-{seed}.json"
    path.write_text(json.dumps(choose_evaluation_people(drawn.annotations, people, seed)))
    return path


def held(everyone: Instances, images: np.ndarray) -> int:
    return int(np.isin(everyone.image_indices, images).sum())


def test_images_hold_enough_people_and_no_image_is_too_much(everyone: Instances) -> None:
    most = np.bincount(everyone.image_indices).max()
    for people in range(1, len(everyone) + 1):
        assert people <= held(everyone, choose_images(everyone, people, seed=3)) < people + most


def test_images_for_fewer_people_are_among_those_for_more(everyone: Instances) -> None:
    choices = [set(choose_images(everyone, people, seed=3).tolist()) for people in range(1, len(everyone) + 1)]
    assert all(fewer <= more for fewer, more in itertools.pairwise(choices))
    assert len(choices[-1]) > len(choices[0])


def test_choice_follows_from_the_seed_and_not_from_the_order_of_the_file(drawn: Dataset, tmp_path: Path) -> None:
    chosen = choose_evaluation_people(drawn.annotations, 8, 1)
    assert chosen == choose_evaluation_people(drawn.annotations, 8, 1)
    names = {image["file_name"] for image in chosen["images"]}
    others = [choose_evaluation_people(drawn.annotations, 8, seed)["images"] for seed in range(2, 6)]
    assert any({image["file_name"] for image in other} != names for other in others)
    content = json.loads(drawn.annotations.read_text())
    turned = tmp_path / "turned.json"
    turned.write_text(json.dumps(content | {"images": content["images"][::-1]}))
    assert {image["file_name"] for image in choose_evaluation_people(turned, 8, 1)["images"]} == names


def test_images_without_people_can_be_chosen(everyone: Instances) -> None:
    first, *_ = choose_images(everyone, 1, seed=0).tolist()
    without = everyone.select(everyone.image_indices != first)
    assert first in choose_images(without, len(without), seed=0)


@pytest.mark.parametrize(("people", "said"), [(0, "ask for at least 1"), (10_000, "leave out the key `people`")])
def test_number_of_people_that_cannot_be_chosen_is_refused(everyone: Instances, people: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        choose_images(everyone, people, seed=0)


def test_subset_holds_all_of_its_images_and_says_how_they_were_chosen(drawn: Dataset, tmp_path: Path) -> None:
    subset = load_annotations(write_subset(drawn, tmp_path, 8, seed=1))
    whole = load_annotations(drawn.annotations)
    assert subset.subset == Subset(people=8, seed=1, images=12, sha256=sha256(drawn.annotations))
    assert whole.subset is None
    ids = {image.id for image in subset.images}
    assert 1 < len(ids) < 12
    # Whoever is annotated there, those who are not evaluated, too: crowds are not mistakes.
    assert subset.coco.anns.keys() == {key for key, entry in whole.coco.anns.items() if entry["image_id"] in ids}


def test_detected_people_of_a_subset_keep_their_numbers_and_others_are_not_reported(
    drawn: Dataset, tmp_path: Path
) -> None:
    path = write_subset(drawn, tmp_path, 8)
    found = evaluation_instances(path, drawn.detections)
    everyone = detected_instances(load_annotations(drawn.annotations), drawn.detections)
    images = {image.id for image in found.images}
    assert found.subset is not None
    assert found.ids.tolist() == [
        identifier for identifier, image in zip(everyone.ids, everyone.image_ids, strict=True) if image in images
    ]
    assert not [notice for notice in found.notices if "has no image" in notice]


def test_subset_of_a_subset_is_refused(drawn: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a subset already, of 8 people"):
        choose_evaluation_people(write_subset(drawn, tmp_path, 8), 2, 0)


def test_damaged_statement_of_a_subset_is_named(drawn: Dataset, tmp_path: Path) -> None:
    path = write_subset(drawn, tmp_path, 8)
    content = json.loads(path.read_text())
    content["posequant_subset"]["people"] = "many"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="posequant_subset number 0: people is 'many'"):
        load_annotations(path)
