import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpose.evaluation.functional import oks_nms
from mmpose.evaluation.metrics import CocoMetric
from numpy.typing import NDArray
from pycocotools import coco as pycocotools
from tests.unit.evaluation_fixtures import (
    Dataset,
    draw_dataset,
    identity_of,
    make_model,
    mmpose_dataset,
    mmpose_predictions,
)

from posequant.base.errors import InputError
from posequant.base.keypoints import COCO, SIGMAS
from posequant.base.measures import STATISTICS
from posequant.data.crops import Cropper, crops_of_images
from posequant.data.dataset import Instances, detected_instances, ground_truth_instances, load_annotations
from posequant.evaluate.keypoint_metrics import (
    coco_results,
    coco_statistics,
    distinct_people,
    evaluate_predictions,
    person_scores,
    sigmas_of,
)
from posequant.evaluate.predict import predict_poses
from posequant.evaluate.predictions import Poses, Predictions
from posequant.networks.opening import open_network

# CocoMetric's names of the ten statistics, in the order of STATISTICS.
NAMES_OF_MMPOSE = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


def disturbed_people(dataset: Dataset, boxes: str, seed: int) -> Predictions:
    """Predictions near the annotated keypoints, some people twice in almost the same pose."""
    generator = np.random.default_rng(seed)
    annotations = load_annotations(dataset.annotations)
    people = [entry for entry in annotations.coco.anns.values() if any(entry["keypoints"])]
    if boxes == "ground-truth":
        instances = ground_truth_instances(annotations)
        poses = [annotations.coco.anns[identifier]["keypoints"] for identifier in instances.ids]
    else:
        instances = detected_instances(annotations, dataset.detections)
        poses = [generator.choice([p["keypoints"] for p in people if p["image_id"] == i]) for i in instances.image_ids]
    keypoints = np.array(poses, np.float32).reshape(-1, 17, 3)[..., :2]
    keypoints += generator.normal(0, generator.choice([0.1, 3, 12], (len(keypoints), 1, 1)), keypoints.shape)
    scales = 1.25 * (instances.bboxes[:, 2:] - instances.bboxes[:, :2])
    return Predictions(
        ids=instances.ids,
        image_ids=instances.image_ids,
        bboxes=instances.bboxes,
        bbox_scores=instances.bbox_scores,
        poses=Poses(
            keypoints=keypoints,
            keypoint_scores=generator.uniform(-0.2, 1, keypoints.shape[:2]).astype(np.float32),
            centers=0.5 * (instances.bboxes[:, 2:] + instances.bboxes[:, :2]),
            scales=scales,
        ),
        identity=identity_of(dataset, len(instances), protocol={"boxes": boxes, "flip_test": False}),
    )


def twice(predictions: Predictions, rows: list[int], same_ids: bool) -> Predictions:
    found = some(predictions, np.concatenate([np.arange(len(predictions.ids)), rows]))
    if not same_ids:
        found.ids[-len(rows) :] += 100_000
    return found


def some(predictions: Predictions, rows: NDArray[np.int64]) -> Predictions:
    columns = {name: getattr(predictions, name)[rows] for name in ("ids", "image_ids", "bboxes", "bbox_scores")}
    poses = Poses(**{name: values[rows] for name, values in vars(predictions.poses).items()})
    return Predictions(**columns, poses=poses, identity=predictions.identity)


def statistics_of_mmpose(dataset: Dataset, predictions: Predictions, prefix: Path) -> dict[str, float]:
    metric = CocoMetric(ann_file=str(dataset.annotations), outfile_prefix=str(prefix))
    metric.dataset_meta = mmpose_dataset(dataset).metainfo
    poses = predictions.poses
    for row, identifier in enumerate(predictions.ids.tolist()):
        one = slice(row, row + 1)
        sample = {
            "id": identifier,
            "img_id": int(predictions.image_ids[row]),
            "category_id": 1,
            "pred_instances": {
                "keypoints": poses.keypoints[one],
                "keypoint_scores": poses.keypoint_scores[one],
                "bboxes": predictions.bboxes[one],
                "bbox_scores": predictions.bbox_scores[one],
            },
            "gt_instances": {"bbox_scores": predictions.bbox_scores[one], "bbox_scales": poses.scales[one]},
        }
        metric.process([], [sample])
    found = metric.evaluate(size=len(predictions.ids))
    return {name: found[f"coco/{other}"] for name, other in zip(STATISTICS, NAMES_OF_MMPOSE, strict=True)}


@pytest.mark.parametrize("boxes", ["ground-truth", "detections"])
@pytest.mark.parametrize("seed", range(3))
def test_statistics_are_those_of_mmpose(dataset: Dataset, tmp_path: Path, boxes: str, seed: int) -> None:
    predictions = twice(disturbed_people(dataset, boxes, seed), [1, 5, 9], same_ids=False)
    predictions = twice(predictions, [2, 3], same_ids=True)
    results = coco_results(predictions, 1)
    expected = statistics_of_mmpose(dataset, predictions, tmp_path / "mmpose")
    written = json.loads((tmp_path / "mmpose.keypoints.json").read_text())
    assert results == written
    assert len(written) < len(predictions.ids) - 2
    statistics, summary = coco_statistics(load_annotations(dataset.annotations), results)
    assert statistics == pytest.approx(expected, abs=1e-9)
    assert 0.05 < expected["AP"] < 0.95
    assert f"= {statistics['AR75']:.3f}" in summary


@pytest.mark.parametrize("boxes", ["ground-truth", "detections"])
def test_file_of_predictions_is_scored(dataset: Dataset, tmp_path: Path, boxes: str) -> None:
    predictions = disturbed_people(dataset, boxes, 0)
    path = tmp_path / "predictions.npz"
    predictions.save(path)
    metrics, _ = evaluate_predictions(path, dataset.annotations)
    results = coco_results(predictions, 1)
    assert metrics["statistics"] == coco_statistics(load_annotations(dataset.annotations), results)[0]
    assert metrics["detections"] == len(results)
    assert metrics["images"] == 6
    assert {"numpy", "posequant", "pycocotools"} == metrics["versions"].keys()


@pytest.mark.parametrize("boxes", ["ground-truth", "detections"])
def test_predictions_of_other_people_are_refused(dataset: Dataset, tmp_path: Path, boxes: str) -> None:
    whole = disturbed_people(dataset, boxes, 0)
    path, count = tmp_path / "predictions.npz", len(whole.ids)
    faults = [
        (twice(whole, [2, 3], same_ids=True), f"people are there more than once: {whole.ids[2]}, {whole.ids[3]}"),
        (twice(whole, [2], same_ids=False), f"holds {count + 1} people, but says that it was made for {count}"),
        (some(whole, np.arange(1, count)), f"holds {count - 1} people, but says that it was made for {count}"),
        (
            replace(whole, image_ids=whole.image_ids + 100),
            "predictions in images that .*annotations.json does not have",
        ),
    ]
    if boxes == "ground-truth":
        fewer = whole.identity | {"instances": count - 1}
        faults += [
            (replace(some(whole, np.arange(1, count)), identity=fewer), "the ids are not those of .*annotations.json"),
            (replace(whole, bboxes=whole.bboxes + np.float32(1)), "the bboxes are not those of .*annotations.json"),
        ]
    for predictions, message in faults:
        predictions.save(path)
        with pytest.raises(InputError, match=rf"predictions\.npz: {message}.* Predict again"):
            evaluate_predictions(path, dataset.annotations)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("name", ["keypoints", "keypoint_scores", "centers", "scales"])
def test_predictions_that_are_no_numbers_are_refused(dataset: Dataset, tmp_path: Path, name: str, value: float) -> None:
    predictions = disturbed_people(dataset, "ground-truth", 0)
    getattr(predictions.poses, name)[3] = value
    path = tmp_path / "predictions.npz"
    predictions.save(path)
    with pytest.raises(InputError, match=rf"predictions\.npz: .*not finite.* for people {predictions.ids[3]}\."):
        evaluate_predictions(path, dataset.annotations)


def test_whole_way_is_that_of_mmpose(dataset: Dataset, tmp_path: Path) -> None:
    model = make_model(tmp_path, "msra")
    annotations = load_annotations(dataset.annotations)
    instances: Instances = ground_truth_instances(annotations)
    network = open_network("pytorch", "fp32", [model.config, model.checkpoint], model.spec)
    poses = predict_poses(
        network,
        model.spec,
        instances,
        crops_of_images(Cropper(model.spec), instances, dataset.images),
        flip_test=False,
        threads=2,
    )
    ours = coco_results(
        Predictions(instances.ids, instances.image_ids, instances.bboxes, instances.bbox_scores, poses, {}), 1
    )
    metric = CocoMetric(ann_file=str(dataset.annotations), outfile_prefix=str(tmp_path / "mmpose"))
    reference: Any = mmpose_dataset(dataset, model)
    metric.dataset_meta = reference.metainfo
    samples = mmpose_predictions(model, list(reference), flip_test=False)
    metric.process([], [sample.to_dict() for sample in samples])
    metric.evaluate(size=len(samples))
    theirs = json.loads((tmp_path / "mmpose.keypoints.json").read_text())
    assert len(ours) == len(theirs)
    assert {entry["image_id"] for entry in ours} == {entry["image_id"] for entry in theirs}
    by_box = {tuple(entry["bbox"]): entry for entry in theirs}
    for entry in ours:
        other = by_box[tuple(entry["bbox"])]
        assert entry.keys() == other.keys()
        assert entry["score"] == pytest.approx(other["score"], abs=1e-5)
        apart = np.abs(np.subtract(entry["keypoints"], other["keypoints"]))
        assert (apart > 1e-2).mean() < 0.05  # where two pixels are almost equal


@given(count=st.integers(1, 12), spread=st.floats(0.1, 20), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_same_people_are_kept_as_by_mmpose(count: int, spread: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    keypoints = (generator.uniform(0, 50, (17, 2)) + generator.normal(0, spread, (count, 17, 2))).astype(np.float32)
    areas = generator.uniform(500, 5000, count).astype(np.float32)
    scores = generator.integers(0, 4, count).astype(np.float32)  # few: some tie
    triplets = np.concatenate([keypoints, np.ones((count, 17, 1), np.float32)], axis=2)
    people = [
        {"keypoints": keypoints_, "area": area, "score": score}
        for keypoints_, area, score in zip(triplets, areas, scores, strict=True)
    ]
    expected = oks_nms(people, 0.9, sigmas=np.array(SIGMAS, np.float32))
    assert distinct_people(keypoints, areas, scores, sigmas_of(COCO)).tolist() == expected.tolist()


def test_person_scores_by_hand() -> None:
    keypoint_scores = np.zeros((3, 17), np.float32)
    keypoint_scores[0, :3] = [0.9, 0.5, 0.2]  # the last is not above the threshold
    keypoint_scores[1, 0] = 0.1
    keypoint_scores[2] = 0.6
    scores = person_scores(np.array([0.5, 1, 1], np.float32), keypoint_scores)
    np.testing.assert_allclose(scores, [0.35, 0, 0.6], rtol=1e-6)


def test_size_that_nobody_has_is_null(dataset: Dataset, tmp_path: Path) -> None:
    content = json.loads(dataset.annotations.read_text())
    for person in content["annotations"]:
        person["area"] = 2000.0
    medium = dataset._replace(annotations=tmp_path / "medium.json")
    medium.annotations.write_text(json.dumps(content))
    path = tmp_path / "predictions.npz"
    disturbed_people(medium, "ground-truth", 0).save(path)
    metrics, _ = evaluate_predictions(path, medium.annotations)
    assert metrics["statistics"]["APL"] is None
    assert metrics["statistics"]["ARL"] is None
    assert metrics["statistics"]["APM"] > 0


def test_perfect_predictions_score_one(dataset: Dataset, tmp_path: Path) -> None:
    predictions = disturbed_people(dataset, "ground-truth", 0)
    truth = pycocotools.COCO(str(dataset.annotations))
    for row, identifier in enumerate(predictions.ids):
        predictions.poses.keypoints[row] = np.reshape(truth.anns[identifier]["keypoints"], (17, 3))[:, :2]
    path = tmp_path / "predictions.npz"
    predictions.save(path)
    metrics, _ = evaluate_predictions(path, dataset.annotations)
    assert metrics["statistics"]["AR"] <= 1
    # mmpose leaves out a person who cannot be evaluated, pycocotools does not: one box here lies outside its image.
    assert metrics["statistics"]["AP"] > 0.8


def test_predictions_for_other_annotations_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    disturbed_people(dataset, "ground-truth", 0).save(path)
    other = tmp_path / "other.json"
    other.write_text(dataset.annotations.read_text() + "\n")
    with pytest.raises(InputError, match=r"predictions\.npz: made for other annotations than .*other\.json"):
        evaluate_predictions(path, other)
