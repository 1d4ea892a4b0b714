from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.evaluation_fixtures import Dataset, draw_dataset, identity_of, make_model

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.data.dataset import CHUNK, evaluation_instances, shard_of
from posequant.evaluate.predict import make_predictions
from posequant.evaluate.predictions import Poses, Predictions, merge_predictions


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Enough people that the chunks are not all in one shard, images shared between chunks."""
    return draw_dataset(tmp_path_factory.mktemp("dataset"), count=16)


@pytest.fixture(scope="module")
def settings(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of `make_predictions`, for a network whose rounding depends on the batch."""
    folder = tmp_path_factory.mktemp("model")
    model = make_model(folder, "msra")
    model.spec.save(folder / "model.json")
    return {
        "model": folder / "model.json",
        "variant": "pytorch",
        "backend": "pytorch",
        "precision": "fp32",
        "artifacts": [model.config, model.checkpoint],
        "images": dataset.images,
        "annotations": dataset.annotations,
        "flip_test": False,
        "threads": 2,
    }


@pytest.mark.parametrize("boxes", ["ground-truth", "detections"])
def test_bytes_do_not_depend_on_the_number_of_shards(
    dataset: Dataset, settings: dict[str, Any], tmp_path: Path, boxes: str
) -> None:
    detections = dataset.detections if boxes == "detections" else None
    whole = tmp_path / "whole.npz"
    make_predictions(**settings, detections=detections).save(whole)
    people = len(Predictions.load(whole).ids)
    assert people > 3 * CHUNK
    for count in (1, 2, 3, people):  # at last most shards are empty
        paths = [tmp_path / f"{shard}-of-{count}.npz" for shard in range(1, count + 1)]
        for shard, path in enumerate(paths, start=1):
            make_predictions(**settings, detections=detections, shard=shard, shards=count).save(path)
        merged = tmp_path / f"merged-{count}.npz"
        merge_predictions(paths[::-1], dataset.annotations, detections).save(merged)
        assert sha256(merged) == sha256(whole)


def test_shards_are_balanced_and_disjoint(dataset: Dataset) -> None:
    instances = evaluation_instances(dataset.annotations, dataset.detections)
    shards = [shard_of(instances, shard, 3) for shard in (1, 2, 3)]
    assert sorted(np.concatenate([shard.ids for shard in shards])) == sorted(instances.ids)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) < 2 * CHUNK
    assert all(size % CHUNK == 0 for size in sizes[:-1])


@pytest.mark.parametrize("shard", [0, 4])
def test_shard_that_does_not_exist_is_refused(dataset: Dataset, shard: int) -> None:
    instances = evaluation_instances(dataset.annotations, None)
    with pytest.raises(InputError, match=f"shard {shard} of 3: give a number from 1"):
        shard_of(instances, shard, 3)


@pytest.fixture
def halves(dataset: Dataset, tmp_path: Path) -> list[Path]:
    """Two shards of the annotated people, without a network."""
    instances = evaluation_instances(dataset.annotations, None)
    paths = [tmp_path / "1-of-2.npz", tmp_path / "2-of-2.npz"]
    for number, path in enumerate(paths, start=1):
        people = shard_of(instances, number, 2)
        poses = Poses.empty(len(people), 17)
        for values in vars(poses).values():
            values[:] = 0
        identity = identity_of(dataset, len(instances))
        Predictions(people.ids, people.image_ids, people.bboxes, people.bbox_scores, poses, identity).save(path)
    return paths


def rewrite(path: Path, rows: slice = slice(None), **identity: Any) -> None:
    """Keep some rows of a shard and change its identity."""
    found = Predictions.load(path)
    poses = Poses(**{name: values[rows] for name, values in vars(found.poses).items()})
    columns = {name: getattr(found, name)[rows] for name in ("ids", "image_ids", "bboxes", "bbox_scores")}
    replace(found, **columns, poses=poses, identity=found.identity | identity).save(path)


def test_missing_people_are_named(dataset: Dataset, halves: list[Path]) -> None:
    lost = Predictions.load(halves[1]).ids[-1]
    rewrite(halves[1], slice(0, -1))
    with pytest.raises(InputError, match=rf"2-of-2\.npz: 1 of \d+ people are missing: {lost}\. Give every shard"):
        merge_predictions(halves, dataset.annotations, None)


def test_missing_shard_names_its_first_people(dataset: Dataset, halves: list[Path]) -> None:
    first = ", ".join(map(str, sorted(Predictions.load(halves[0]).ids.tolist())[:3]))
    with pytest.raises(InputError, match=rf"people are missing: {first} and \d+ more"):
        merge_predictions(halves[1:], dataset.annotations, None)


def test_shard_given_twice_is_refused(dataset: Dataset, halves: list[Path]) -> None:
    with pytest.raises(InputError, match=r"people are there more than once: \d+, \d+, \d+ and \d+ more"):
        merge_predictions([*halves, halves[0]], dataset.annotations, None)


def test_strangers_are_refused(dataset: Dataset, halves: list[Path]) -> None:
    found = Predictions.load(halves[0])
    strangers = halves[0].with_name("strangers.npz")
    replace(found, ids=found.ids + 10**6).save(strangers)
    with pytest.raises(InputError, match="people are not of the evaluation set: 1"):
        merge_predictions([*halves, strangers], dataset.annotations, None)


def test_shards_of_different_identity_are_named(dataset: Dataset, halves: list[Path]) -> None:
    rewrite(halves[1], variant="other")
    with pytest.raises(InputError, match=r"1-of-2\.npz and .*2-of-2\.npz are not shards .*differ in variant"):
        merge_predictions(halves, dataset.annotations, None)


def test_shards_of_another_evaluation_set_are_refused(dataset: Dataset, halves: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1-of-2\.npz: made for other detections than .*detections\.json"):
        merge_predictions(halves, dataset.annotations, dataset.detections)
    other = tmp_path / "other.json"
    other.write_text(dataset.annotations.read_text() + "\n")
    with pytest.raises(InputError, match=r"1-of-2\.npz: made for other annotations than .*other\.json"):
        merge_predictions(halves, other, None)


def test_shard_for_other_boxes_is_refused(dataset: Dataset, halves: list[Path]) -> None:
    found = Predictions.load(halves[1])
    replace(found, bboxes=found.bboxes + np.float32(1)).save(halves[1])
    with pytest.raises(InputError, match=r"2-of-2\.npz: made for other boxes than those of the evaluation set"):
        merge_predictions(halves, dataset.annotations, None)


def test_files_of_another_form_are_refused(halves: list[Path]) -> None:
    found = Predictions.load(halves[0])
    poses = found.poses
    for changed in (
        replace(found, ids=found.ids.astype(np.float64)),
        replace(found, bboxes=found.bboxes[1:]),
        replace(found, poses=replace(poses, keypoints=poses.keypoints[:, :16])),
        replace(found, poses=replace(poses, keypoint_scores=poses.keypoint_scores.astype(np.float64))),
        replace(found, identity={"model": "m"}),
        replace(found, identity=found.identity | {"sha256": None}),
    ):
        changed.save(halves[0])
        with pytest.raises(InputError, match=r"1-of-2\.npz: not a file of predictions, or damaged"):
            Predictions.load(halves[0])
