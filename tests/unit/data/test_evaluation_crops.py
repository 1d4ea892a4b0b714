import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.evaluation_fixtures import Dataset, Model, draw_dataset, make_model

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.data.crops import Cropper, crops_of_images
from posequant.data.dataset import CHUNK, Instances, evaluation_instances, shard_of
from posequant.data.evaluation_crops import keep_crops, open_crops
from posequant.workflow.settings.data import EvaluationCrops

SCRIPT = Path(__file__).parents[3] / "scripts/evaluation_crops.py"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("model"), "msra")


@pytest.fixture
def sources(dataset: Dataset, model: Model, tmp_path: Path) -> dict[str, Any]:
    """Arguments of `keep_crops`."""
    model.spec.save(tmp_path / "model.json")
    return {
        "model": tmp_path / "model.json",
        "images": dataset.images,
        "annotations": dataset.annotations,
        "detections": None,
        "folder": tmp_path / "crops",
    }


@pytest.fixture
def instances(dataset: Dataset) -> Instances:
    return evaluation_instances(dataset.annotations, None)


@pytest.mark.parametrize("boxes", ["ground-truth", "detections"])
@pytest.mark.parametrize(("shard", "shards"), [(1, 1), (2, 2)])
def test_kept_crops_are_those_of_the_images(
    sources: dict[str, Any], dataset: Dataset, model: Model, boxes: str, shard: int, shards: int
) -> None:
    detections = dataset.detections if boxes == "detections" else None
    record = keep_crops(**sources | {"detections": detections, "shard": shard, "shards": shards, "threads": 3})
    people = shard_of(evaluation_instances(dataset.annotations, detections), shard, shards)
    order = np.random.default_rng(0).permutation(len(people))
    crops = open_crops(sources["folder"], model.spec, people)
    assert crops is not None
    expected = crops_of_images(Cropper(model.spec), people, dataset.images)(order)
    np.testing.assert_array_equal(crops(order), expected)
    assert record["kept"]
    assert record["people"] == len(people) > 0


def test_same_bytes_whatever_the_number_of_threads(sources: dict[str, Any], tmp_path: Path) -> None:
    folders = [tmp_path / str(threads) for threads in (1, 4)]
    for folder, threads in zip(folders, (1, 4), strict=True):
        keep_crops(**sources | {"folder": folder, "threads": threads})
    for name in ("crops.npy", "crops.json"):
        assert sha256(folders[0] / name) == sha256(folders[1] / name)


def test_limit_is_that_of_all_shards(
    sources: dict[str, Any], instances: Instances, model: Model, tmp_path: Path
) -> None:
    height, width = model.spec.input_shape[1:]
    gigabytes = len(instances) * height * width * 3 / 1e9
    for number, (limit, kept) in enumerate([(gigabytes, True), (0.99 * gigabytes, False)]):
        folder = tmp_path / str(number)
        record = keep_crops(
            **sources | {"folder": folder, "settings": EvaluationCrops(limit_gb=limit), "shard": 1, "shards": 2}
        )
        assert record["kept"] == (folder / "crops.npy").exists() == kept
        crops = open_crops(folder, model.spec, shard_of(instances, 1, 2))
        assert (crops is not None) == kept


def test_crops_of_others_are_refused(sources: dict[str, Any], instances: Instances, model: Model) -> None:
    keep_crops(**sources)
    changed = instances.bboxes + np.float32(1)
    assert len(instances) > CHUNK
    for spec, people in (
        (model.spec, instances.select(np.arange(CHUNK))),
        (model.spec, instances.select(np.arange(len(instances))[::-1])),
        (model.spec, replace(instances, bboxes=changed)),
        (replace(model.spec, padding=1.5), instances),
        (replace(model.spec, use_udp=True), instances),
        (replace(model.spec, input_size=(96, 64)), instances),
    ):
        with pytest.raises(InputError, match="crops: holds the crops of other people, or made in another way"):
            open_crops(sources["folder"], spec, people)


def test_normalisation_does_not_matter(sources: dict[str, Any], instances: Instances, model: Model) -> None:
    keep_crops(**sources)
    assert open_crops(sources["folder"], replace(model.spec, mean=(1, 2, 3), to_rgb=False), instances) is not None


def test_damaged_crops_are_refused(sources: dict[str, Any], instances: Instances, model: Model) -> None:
    keep_crops(**sources)
    path = sources["folder"] / "crops.npy"
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"nothing"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"crops\.npy: the crops cannot be read .*Delete it and run again"):
            open_crops(sources["folder"], model.spec, instances)
    np.save(path, np.zeros((len(instances), 5, 5, 3), np.uint8))
    with pytest.raises(InputError, match=r"crops\.npy: holds uint8 .*, not \d+ crops"):
        open_crops(sources["folder"], model.spec, instances)
    path.unlink()
    with pytest.raises(InputError, match=r"crops\.npy: the crops cannot be read"):
        open_crops(sources["folder"], model.spec, instances)


def test_whoever_is_left_out_is_told_of_once(sources: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for shard in (1, 2):
        keep_crops(**sources | {"folder": sources["folder"] / str(shard), "shard": shard, "shards": 2})
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("notice: ")]
    assert len(lines) == 1
    assert "annotations.json: 2 of " in lines[0]
    assert "annotation ids 1006, 1008" in lines[0]


def test_size_of_an_image_without_people_is_checked(sources: dict[str, Any], dataset: Dataset, tmp_path: Path) -> None:
    content = json.loads(dataset.annotations.read_text())
    content["images"][-1]["width"] = 1
    sources["annotations"] = tmp_path / "narrow.json"
    sources["annotations"].write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"{content['images'][-1]['file_name']}: the image has .* says 1x"):
        keep_crops(**sources)


def test_script_says_whether_they_are_kept(sources: dict[str, Any], tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "made")]
    for name in ("model", "images", "annotations"):
        command += [f"--{name}", str(sources[name])]
    done = subprocess.run([*command, "--limit-gb", "0"], capture_output=True, text=True, check=True)
    assert (
        "crops of all shards take 0.00 GB; the limit is 0 GB: not kept: every prediction cuts them anew" in done.stdout
    )
    assert json.loads((tmp_path / "made/crops.json").read_text())["kept"] is False
