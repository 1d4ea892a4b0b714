import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.evaluation_fixtures import (
    Dataset,
    Model,
    draw_dataset,
    export_onnx,
    make_model,
    mmpose_dataset,
    mmpose_predictions,
)

from posequant.base.errors import InputError
from posequant.base.files import sha256, write_json
from posequant.base.verify import hashes
from posequant.data.crops import Cropper, crops_of_images
from posequant.data.dataset import CHUNK, Instances, detected_instances, ground_truth_instances, load_annotations
from posequant.data.evaluation_crops import keep_crops
from posequant.evaluate.predict import make_predictions, predict_poses
from posequant.evaluate.predictions import Predictions
from posequant.networks.base import Network
from posequant.networks.opening import open_network
from posequant.workflow.settings.data import EvaluationCrops

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("model"), "msra")


@pytest.fixture(scope="module")
def settings(dataset: Dataset, model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of `make_predictions`."""
    folder = tmp_path_factory.mktemp("onnx")
    model.spec.save(folder / "model.json")
    return {
        "model": folder / "model.json",
        "variant": "onnxruntime",
        "backend": "onnxruntime",
        "precision": "fp32",
        "artifacts": [export_onnx(model, folder / "model.onnx")],
        "images": dataset.images,
        "annotations": dataset.annotations,
        "detections": None,
        "flip_test": False,
        "threads": 2,
    }


@pytest.mark.parametrize("boxes", ["ground-truth", "detections"])
@pytest.mark.parametrize("flip_test", [False, True])
def test_predicts_what_mmpose_predicts(dataset: Dataset, model: Model, boxes: str, flip_test: bool) -> None:
    annotations = load_annotations(dataset.annotations)
    detected = boxes == "detections"
    instances = detected_instances(annotations, dataset.detections) if detected else ground_truth_instances(annotations)
    network = open_network("pytorch", "fp32", [model.config, model.checkpoint], model.spec)
    poses = predict_poses(
        network,
        model.spec,
        instances,
        crops_of_images(Cropper(model.spec), instances, dataset.images),
        flip_test=flip_test,
        threads=2,
    )
    samples = list(mmpose_dataset(dataset, model, detections=detected))
    reference = mmpose_predictions(model, samples, flip_test)
    expected = np.concatenate([sample.pred_instances.keypoints for sample in reference])
    # Batches of another size round differently; where two pixels are almost equal that moves a keypoint.
    assert (np.abs(poses.keypoints - expected) > 1e-2).mean() < 0.01
    np.testing.assert_allclose(
        poses.keypoint_scores,
        np.concatenate([sample.pred_instances.keypoint_scores for sample in reference]),
        atol=1e-5,
    )
    np.testing.assert_array_equal(
        poses.scales, np.concatenate([sample.gt_instances.bbox_scales for sample in reference])
    )


def test_same_bytes_whatever_the_number_of_threads(settings: dict[str, Any], tmp_path: Path) -> None:
    files = []
    for threads in (1, 2, 5):
        files.append(tmp_path / f"{threads}.npz")
        make_predictions(**settings | {"threads": threads}).save(files[-1])
    assert len({sha256(path) for path in files}) == 1


def test_poses_are_in_the_order_of_the_people(dataset: Dataset, settings: dict[str, Any], model: Model) -> None:
    instances = ground_truth_instances(load_annotations(dataset.annotations))
    assert len(instances) > CHUNK
    order = np.random.default_rng(0).permutation(len(instances))
    network = open_network("onnxruntime", "fp32", settings["artifacts"], model.spec)
    straight, shuffled = (
        predict_poses(
            network,
            model.spec,
            people,
            crops_of_images(Cropper(model.spec), people, dataset.images),
            flip_test=False,
            threads=2,
        )
        for people in (instances, instances.select(order))
    )
    for name in vars(straight):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(straight, name)[order])


def test_predictions_carry_their_identity(dataset: Dataset, settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    made = make_predictions(**settings | {"detections": dataset.detections, "flip_test": True})
    made.save(path)
    read = Predictions.load(path)
    assert read.identity == made.identity
    assert read.identity["model"] == "msra"
    assert read.identity["protocol"] == {"boxes": "detections", "flip_test": True}
    assert read.identity["instances"] == len(read.ids) == len(read.poses.keypoints)
    assert read.identity["sha256"]["artifact"] == {"model.onnx": sha256(settings["artifacts"][0])}
    assert read.identity["sha256"]["annotations"] == sha256(dataset.annotations)
    assert read.identity["sha256"]["detections"] == sha256(dataset.detections)
    assert {"onnxruntime", "numpy"} <= read.identity["versions"].keys()
    np.testing.assert_array_equal(read.poses.keypoints, made.poses.keypoints)
    np.testing.assert_array_equal(read.image_ids, made.image_ids)
    assert read.poses.keypoints.dtype == np.float32
    assert read.ids.dtype == np.int64


def test_same_bytes_from_kept_crops_without_images(settings: dict[str, Any], tmp_path: Path) -> None:
    make_predictions(**settings).save(tmp_path / "images.npz")
    sources = {name: settings[name] for name in ("model", "images", "annotations", "detections")}
    keep_crops(**sources, folder=tmp_path / "crops")
    kept = settings | {"crops": tmp_path / "crops", "images": tmp_path / "none"}
    make_predictions(**kept).save(tmp_path / "crops.npz")
    assert (tmp_path / "crops.npz").read_bytes() == (tmp_path / "images.npz").read_bytes()
    keep_crops(**sources, folder=tmp_path / "too large", settings=EvaluationCrops(limit_gb=0))
    make_predictions(**settings | {"crops": tmp_path / "too large"}).save(tmp_path / "too large.npz")
    assert (tmp_path / "too large.npz").read_bytes() == (tmp_path / "images.npz").read_bytes()


def test_damaged_predictions_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    make_predictions(**settings).save(path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"no archive"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"predictions\.npz: not a file of predictions"):
            Predictions.load(path)
    np.savez(path, ids=np.arange(3))
    with pytest.raises(InputError, match=r"predictions\.npz: not a file of predictions"):
        Predictions.load(path)


def test_damaged_and_missing_images_are_named(dataset: Dataset, settings: dict[str, Any], tmp_path: Path) -> None:
    for path in dataset.images.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "000000000003.jpg"
    broken.write_bytes(broken.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"000000000003\.jpg: the image is damaged"):
        make_predictions(**settings | {"images": tmp_path})
    broken.unlink()
    with pytest.raises(InputError, match=r"lacks the annotated images 000000000003\.jpg$"):
        make_predictions(**settings | {"images": tmp_path})


@dataclasses.dataclass
class Overflowing:
    """A network that fails for one crop in its life."""

    network: Network
    calls: int = 0

    def forward(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        outputs = self.network.forward(crops)
        self.calls += 1
        if self.calls == 2:
            outputs[0][1, 3, 4, 5] = np.inf
        return outputs


def test_output_that_is_not_finite_is_refused(dataset: Dataset, settings: dict[str, Any], model: Model) -> None:
    instances: Instances = ground_truth_instances(load_annotations(dataset.annotations))
    network = Overflowing(open_network("onnxruntime", "fp32", settings["artifacts"], model.spec))
    guilty = instances.ids[CHUNK + 1]
    with pytest.raises(InputError, match=f"output for person {guilty} in .*jpg is not finite"):
        predict_poses(
            network,
            model.spec,
            instances,
            crops_of_images(Cropper(model.spec), instances, dataset.images),
            flip_test=False,
            threads=1,
        )


class Immense:
    """A network whose output is finite, and no heatmap of any kind."""

    def forward(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [np.full((len(crops), 17, 24, 16), 1e30, np.float32)]


def test_pose_that_cannot_be_scored_is_refused(dataset: Dataset, model: Model) -> None:
    instances: Instances = ground_truth_instances(load_annotations(dataset.annotations))
    crops = crops_of_images(Cropper(model.spec), instances, dataset.images)
    with pytest.raises(
        InputError, match=f"the pose of person {instances.ids[0]} in .*jpg is not finite, or far beyond"
    ):
        predict_poses(Immense(), model.spec, instances, crops, flip_test=False, threads=1)


def test_without_crops_whoever_is_left_out_is_told_of(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    make_predictions(**settings)
    assert "notice: " in capsys.readouterr().err


def test_network_that_changed_after_it_was_made_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    (original,) = settings["artifacts"]
    network, record = tmp_path / original.name, tmp_path / "export.json"
    network.write_bytes(original.read_bytes())
    write_json(record, {"sha256": hashes(network)})
    settings = settings | {"artifacts": [network, record]}
    assert make_predictions(**settings).identity["sha256"]["artifact"] == hashes(original)
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    with pytest.raises(InputError, match=rf"{network.name}: changed after it was made"):
        make_predictions(**settings)


def test_script_from_predictions_to_metrics(settings: dict[str, Any], tmp_path: Path) -> None:
    predictions, merged, metrics = (tmp_path / name for name in ("shard.npz", "predictions.npz", "metrics.json"))
    command = [sys.executable, str(SCRIPTS / "predict.py"), "--threads", "2", "--out", str(predictions)]
    for name in ("model", "variant", "backend", "precision", "images", "annotations"):
        command += [f"--{name}", str(settings[name])]
    failed = subprocess.run([*command, "--artifact", "none.onnx"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr == "error: none.onnx: no such file.\n"
    assert not predictions.exists()
    subprocess.run([*command, "--artifact", str(settings["artifacts"][0])], check=True)
    evaluate = [sys.executable, str(SCRIPTS / "evaluate.py"), "--annotations", str(settings["annotations"])]
    done = subprocess.run(
        [*evaluate, "--shards", str(predictions), "--out-predictions", str(merged), "--out", str(metrics)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all" in done.stdout
    assert "AP75" in json.loads(metrics.read_text())["statistics"]
