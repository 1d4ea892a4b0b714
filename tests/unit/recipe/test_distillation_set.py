"""Whom an INT8 network may be tuned on: nobody in an image of people who decide, tell or are evaluated on."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.unit.evaluation_fixtures import Dataset, draw_dataset

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.data.calibration_set import choose_calibration_set, choose_people, load_people
from posequant.data.dataset import ground_truth_instances, load_annotations
from posequant.recipe.distillation_set import choose_distillation_set
from posequant.recipe.parts import split

SEED, CALIBRATED, EVERYONE = 3, 9, 1000


class Splits(NamedTuple):
    """Training and evaluation people, and those of the training that are calibrated on."""

    train: Dataset
    val: Dataset
    calibration: Path

    def choose(self, people: int = EVERYONE, **changes: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "annotations": self.train.annotations,
            "evaluation_annotations": self.val.annotations,
            "calibration": self.calibration,
            "people": people,
            "seed": SEED,
        }
        return choose_distillation_set(**arguments | changes)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    folder = tmp_path_factory.mktemp("splits")
    train = draw_dataset(folder / "train", seed=1, first_image=101, count=16)
    val = draw_dataset(folder / "val")
    calibration = folder / "calibration.json"
    chosen = choose_calibration_set(train.annotations, val.annotations, people=CALIBRATED, seed=SEED)
    calibration.write_text(json.dumps(chosen))
    return Splits(train, val, calibration)


def images(people: list[dict[str, Any]]) -> list[int]:
    return [person["image"]["id"] for person in people]


def part(splits: Splits, *names: str) -> set[int]:
    """Images of the calibration people of some parts."""
    image_ids = np.array([person.image.id for person in load_people(splits.calibration)])
    parts = split(image_ids)
    return {int(image) for name in names for image in image_ids[getattr(parts, name)]}


def test_nobody_is_in_an_image_of_people_who_decide_or_tell(splits: Splits) -> None:
    chosen = set(images(splits.choose()["people"]))
    kept_out = part(splits, "deciding", "telling")
    assert len(kept_out) == 4
    assert chosen.isdisjoint(kept_out)
    assert chosen | kept_out == {image.id for image in load_annotations(splits.train.annotations).images}
    assert part(splits, "seen") <= chosen


def test_they_are_the_first_of_the_order_in_which_people_are_chosen(splits: Splits) -> None:
    training = ground_truth_instances(load_annotations(splits.train.annotations))
    order = training.select(choose_people(training, len(training), SEED))
    kept_out = part(splits, "deciding", "telling")
    expected = order.ids[[image not in kept_out for image in order.image_ids.tolist()]].tolist()
    everyone, some = splits.choose()["people"], splits.choose(people=5)["people"]
    assert [person["annotation_id"] for person in everyone] == expected
    assert some == everyone[:5]


def test_choice_states_where_it_comes_from(splits: Splits, tmp_path: Path) -> None:
    chosen = splits.choose(people=7)
    assert (chosen["seed"], len(chosen["people"])) == (SEED, 7)
    assert chosen["annotations"]["sha256"] == sha256(splits.train.annotations)
    assert chosen["evaluation"] == {
        "file": "annotations.json",
        "sha256": sha256(splits.val.annotations),
        "images": 6,
        "overlap": 0,
    }
    assert chosen["calibration"] == {"sha256": sha256(splits.calibration), "images_kept_out": 4, "overlap": 0}
    (tmp_path / "people.json").write_text(json.dumps(chosen))
    assert [person.image.id for person in load_people(tmp_path / "people.json")] == images(chosen["people"])


def test_calibration_people_stay_what_they_are(splits: Splits) -> None:
    """Whom a study calibrates on, of these people and this seed, before there was a step that distills."""
    people = json.loads(splits.calibration.read_text())["people"]
    training = ground_truth_instances(load_annotations(splits.train.annotations))
    expected = training.ids[choose_people(training, CALIBRATED, SEED)].tolist()
    assert [person["annotation_id"] for person in people] == expected


def test_image_of_another_id_is_kept_out_by_its_name(splits: Splits, tmp_path: Path) -> None:
    content = json.loads(splits.calibration.read_text())
    deciding = min(part(splits, "deciding"))
    for person in content["people"]:
        if person["image"]["id"] == deciding:
            person["image"]["id"] = 7777
    (tmp_path / "renamed.json").write_text(json.dumps(content))
    assert deciding not in images(splits.choose(calibration=tmp_path / "renamed.json")["people"])


def test_evaluation_images_are_refused(splits: Splits, tmp_path: Path) -> None:
    content = json.loads(splits.val.annotations.read_text())
    image = splits.choose()["people"][-1]["image"]
    content["images"][0]["file_name"] = image["file_name"]
    (tmp_path / "shared.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"1 chosen distillation images are evaluation images.*ids {image['id']}"):
        splits.choose(evaluation_annotations=tmp_path / "shared.json")


def test_nobody_left_is_refused(splits: Splits, tmp_path: Path) -> None:
    content = json.loads(splits.train.annotations.read_text())
    kept_out = part(splits, "deciding", "telling")
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept_out]
    (tmp_path / "few.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"few\.json: nobody is left to distill on"):
        splits.choose(annotations=tmp_path / "few.json")
