"""Sets of keypoints other than COCO's, scored as mmpose's evaluators of their datasets do."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmpose.datasets.datasets.utils import parse_pose_metainfo
from mmpose.evaluation.metrics import AUC, EPE, NME, CocoMetric, CocoWholeBodyMetric, MpiiPCKAccuracy, PCKAccuracy
from tests.unit.evaluation_fixtures import Dataset, draw_dataset, identity_of
from xtcocotools import coco as xtcocotools
from xtcocotools.cocoeval import COCOeval as XtEvaluation

from posequant.base.errors import InputError
from posequant.base.keypoints import COCO, KeypointSet
from posequant.base.measures import STATISTICS
from posequant.data.dataset import Annotations, evaluation_instances, ground_truth_instances, load_annotations
from posequant.evaluate.distances import distances_of
from posequant.evaluate.ground import require_common_ground
from posequant.evaluate.keypoint_metrics import coco_results, score
from posequant.evaluate.oks import shift_of_predictions
from posequant.evaluate.paired import bootstrap_predictions
from posequant.evaluate.predictions import Poses, Predictions
from posequant.workflow.keypoint_sets import find_keypoints, known_sets
from posequant.workflow.settings.certify import Sampling

PARTS = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}


def drawn(folder: Path, name: str, seed: int = 0) -> Dataset:
    """People of another set of keypoints, in the boxes of the drawn ones."""
    dataset = draw_dataset(folder, seed, count=12)
    generator = np.random.default_rng(seed)
    content = json.loads(dataset.annotations.read_text())
    for person in content["annotations"]:
        person["keypoints"] = keypoints_in(generator, person["bbox"], 17 if name == "coco_wholebody" else size(name))
        for part, count in PARTS.items() if name == "coco_wholebody" else ():
            person[part] = keypoints_in(generator, person["bbox"], count, absent=generator.random() < 0.3)
        person["num_keypoints"] = sum(value > 0 for value in person["keypoints"][2::3])
        if name == "crowdpose":
            del person["area"]
            person["num_keypoints"] = sum(value == 2 for value in person["keypoints"][2::3])
        if name == "mpii":
            person["head_size"] = float(generator.uniform(5, 30))
    if name == "ap10k":
        for person in content["annotations"]:
            person["category_id"] = 1 + person["id"] % 3
        content["categories"] = [{"id": category, "name": f"species {category}"} for category in (1, 2, 3, 4)]
    if name == "crowdpose":
        for image, index in zip(content["images"], [0.05, 0.15, 0.3, 0.5, 0.79, 0.85] * 2, strict=True):
            image["crowdIndex"] = index
    dataset.annotations.write_text(json.dumps(content))
    return dataset


def size(name: str) -> int:
    return len(find_keypoints(name))


def keypoints_in(generator: np.random.Generator, bbox: list[float], count: int, absent: bool = False) -> list[float]:
    left, top, width, height = bbox
    places = generator.uniform([left, top], [left + width, top + height], (count, 2)).round(2)
    visibility = generator.choice([0, 1, 2], count, p=[0.2, 0.2, 0.6]) * (not absent)
    visibility[0] = 2 * (not absent)
    triplets = np.column_stack([places * (visibility > 0)[:, np.newaxis], visibility])
    return [float(value) for value in triplets.ravel()]


def disturbed(dataset: Dataset, keypoints: KeypointSet, seed: int = 0) -> tuple[Annotations, Predictions]:
    """Predictions near the annotated keypoints, in annotated boxes."""
    generator = np.random.default_rng(seed)
    annotations = load_annotations(dataset.annotations, keypoints)
    instances = ground_truth_instances(annotations)
    truth = np.array([annotations.coco.anns[identifier]["keypoints"] for identifier in instances.ids.tolist()])
    found = truth.reshape(len(instances), -1, 3)[..., :2]
    found = found + generator.normal(0, generator.choice([0.3, 3, 12], (len(found), 1, 1)), found.shape)
    centers, scales = 0.5 * (instances.bboxes[:, 2:] + instances.bboxes[:, :2]), instances.bboxes[:, 2:]
    poses = Poses(
        found.astype(np.float32),
        generator.uniform(0.1, 1, found.shape[:2]).astype(np.float32),
        centers,
        1.25 * (scales - instances.bboxes[:, :2]),
    )
    identity = identity_of(dataset, len(instances), keypoints=keypoints.listed())
    predictions = Predictions(
        instances.ids, instances.image_ids, instances.bboxes, instances.bbox_scores, poses, identity
    )
    return annotations, predictions


def by_mmpose(metric: Any, name: str, annotations: Annotations, predictions: Predictions) -> dict[str, float]:
    """What an evaluator of mmpose says of predictions."""
    metric.dataset_meta = parse_pose_metainfo({"from_file": str(known_sets()[name])})
    for row, identifier in enumerate(predictions.ids.tolist()):
        one = slice(row, row + 1)
        person = annotations.coco.anns[identifier]
        truth = np.array(person["keypoints"], np.float64).reshape(1, -1, 3)
        sample = {
            "id": identifier,
            "img_id": int(predictions.image_ids[row]),
            "category_id": person["category_id"],
            "pred_instances": {
                "keypoints": predictions.poses.keypoints[one],
                "keypoint_scores": predictions.poses.keypoint_scores[one],
                "bboxes": predictions.bboxes[one],
                "bbox_scores": predictions.bbox_scores[one],
            },
            "gt_instances": {
                "bbox_scores": predictions.bbox_scores[one],
                "bbox_scales": predictions.poses.scales[one],
                "bboxes": predictions.bboxes[one],
                # MpiiPCKAccuracy takes annotations for counted from 1.
                "keypoints": truth[..., :2] + (1 if isinstance(metric, MpiiPCKAccuracy) else 0),
                "keypoints_visible": np.minimum(1, truth[..., 2]),
                "head_size": person["head_size"],
            },
        }
        metric.process([], [sample])
    return {key.split("/")[-1]: value for key, value in metric.evaluate(size=len(predictions.ids)).items()}


@pytest.mark.parametrize("name", ["ap10k", "halpe", "coco_wholebody_hand", "aic"])
def test_ap_is_that_of_mmpose_with_the_sets_sigmas(tmp_path: Path, name: str) -> None:
    dataset = drawn(tmp_path / "dataset", name)
    annotations, predictions = disturbed(dataset, find_keypoints(name))
    theirs = by_mmpose(CocoMetric(ann_file=str(dataset.annotations)), name, annotations, predictions)
    _, ours, _ = score(predictions, annotations)
    named = zip(STATISTICS, ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5"), strict=False)
    assert 0.1 < theirs["AP"] < 0.95
    for key, other in named:
        assert ours[key] == pytest.approx(theirs[other], abs=1e-4), key


def test_crowdpose_has_ap_by_how_crowded_images_are(tmp_path: Path) -> None:
    dataset = drawn(tmp_path / "dataset", "crowdpose")
    annotations, predictions = disturbed(dataset, find_keypoints("crowdpose"))
    metric = CocoMetric(ann_file=str(dataset.annotations), iou_type="keypoints_crowd", use_area=False)
    theirs = by_mmpose(metric, "crowdpose", annotations, predictions)
    _, ours, _ = score(predictions, annotations)
    pairs = {"AP": "AP", "AP50": "AP .5", "AR": "AR", "AP easy": "AP(E)", "AP medium": "AP(M)", "AP hard": "AP(H)"}
    assert len({theirs[other] for other in pairs.values()}) == len(pairs)
    for key, other in pairs.items():
        assert ours[key] == pytest.approx(theirs[other], abs=1e-4), key


def test_whole_bodies_have_ap_of_each_part(tmp_path: Path) -> None:
    dataset = drawn(tmp_path / "dataset", "coco_wholebody")
    keypoints = find_keypoints("coco_wholebody")
    annotations, predictions = disturbed(dataset, keypoints)
    metric = CocoWholeBodyMetric(ann_file=str(dataset.annotations), outfile_prefix=str(tmp_path / "mmpose"))
    theirs = by_mmpose(metric, "coco_wholebody", annotations, predictions)
    _, ours, _ = score(predictions, annotations)
    for key, other in (("AP", "AP"), ("AP50", "AP .5"), ("APM", "AP (M)"), ("APL", "AP (L)"), ("AR", "AR")):
        assert ours[key] == pytest.approx(theirs[other], abs=1e-4), key
    # mmpose prints those of the parts only.
    ends = np.cumsum([0, 17, *PARTS.values()])
    for place, part in enumerate(("body", "foot", "face", "left hand", "right hand")):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = xtcocotools.COCO(str(dataset.annotations))
            evaluation = XtEvaluation(
                truth,
                truth.loadRes(str(tmp_path / "mmpose.keypoints.json")),
                f"keypoints_{part.replace(' ', '')}",
                np.array(keypoints.sigmas)[ends[place] : ends[place + 1]],
                use_area=True,
            )
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        assert ours[f"AP {part}"] == pytest.approx(evaluation.stats[0], abs=1e-4), part
        assert ours[f"AR {part}"] == pytest.approx(evaluation.stats[5], abs=1e-4), part


def test_hands_have_pck_auc_and_epe(tmp_path: Path) -> None:
    annotations, predictions = disturbed(drawn(tmp_path / "dataset", "onehand10k"), find_keypoints("onehand10k"))
    _, ours, summary = score(predictions, annotations)
    for metric, key in ((PCKAccuracy(thr=0.2), "PCK"), (AUC(), "AUC"), (EPE(), "EPE")):
        theirs = by_mmpose(metric, "onehand10k", annotations, predictions)
        assert ours[key] == pytest.approx(theirs[key], abs=1e-4), key
    assert set(ours) == {"PCK", "AUC", "EPE", "NME"}
    assert "has no sigmas" in summary


@pytest.mark.parametrize("name", ["300w", "wflw", "cofw", "lapa", "horse10", "coco_wholebody_face"])
def test_faces_have_nme_by_the_distance_of_the_eyes(tmp_path: Path, name: str) -> None:
    annotations, predictions = disturbed(drawn(tmp_path / "dataset", name), find_keypoints(name))
    theirs = by_mmpose(NME(norm_mode="keypoint_distance"), name, annotations, predictions)
    assert score(predictions, annotations)[1]["NME"] == pytest.approx(theirs["NME"], abs=1e-4)


def test_other_sets_have_nme_by_the_box(tmp_path: Path) -> None:
    annotations, predictions = disturbed(drawn(tmp_path / "dataset", "aflw"), find_keypoints("aflw"))
    metric = NME(norm_mode="use_norm_item", norm_item="bbox_size")
    theirs = by_mmpose(metric, "aflw", annotations, predictions)
    assert score(predictions, annotations)[1]["NME"] == pytest.approx(theirs["NME"], abs=1e-4)


def test_mpii_has_pckh(tmp_path: Path) -> None:
    annotations, predictions = disturbed(drawn(tmp_path / "dataset", "mpii"), find_keypoints("mpii"))
    theirs = by_mmpose(MpiiPCKAccuracy(), "mpii", annotations, predictions)
    ours = score(predictions, annotations)[1]
    assert ours["PCKh"] == pytest.approx(theirs["PCK"] / 100, abs=1e-4)
    assert ours["PCKh@0.1"] == pytest.approx(theirs["PCK@0.1"] / 100, abs=1e-4)


def test_people_that_are_drawn_twice_count_twice(tmp_path: Path) -> None:
    annotations, predictions = disturbed(drawn(tmp_path / "dataset", "mpii"), find_keypoints("mpii"))
    distances = distances_of(annotations, predictions)
    rows = np.array([0, 0, 3, 5, 5, 5])
    of_rows: dict[str, Any] = {name: values[rows] for name, values in vars(distances).items()}
    counts = np.bincount(rows, minlength=len(distances.pixels))[np.newaxis].astype(np.int32)
    once = type(distances)(**of_rows).statistics(np.ones((1, len(rows)), np.int32))
    drawn_twice = distances.statistics(counts)
    assert {name: value[0] for name, value in drawn_twice.items()} == pytest.approx(
        {name: value[0] for name, value in once.items()}
    )


def test_distances_in_detected_boxes_are_refused(tmp_path: Path) -> None:
    annotations, predictions = disturbed(drawn(tmp_path / "dataset", "onehand10k"), find_keypoints("onehand10k"))
    predictions.identity["protocol"] = {"boxes": "detections", "flip_test": False}
    with pytest.raises(InputError, match="measured in annotated boxes"):
        score(predictions, annotations)


def test_ap_without_sigmas_is_refused(tmp_path: Path) -> None:
    _, predictions = disturbed(drawn(tmp_path / "dataset", "onehand10k"), find_keypoints("onehand10k"))
    with pytest.raises(InputError, match=r"onehand10k \(21 keypoints\) has no sigmas"):
        coco_results(predictions, 1)


def test_people_with_other_keypoints_than_the_sets_are_refused(tmp_path: Path) -> None:
    dataset = drawn(tmp_path / "dataset", "onehand10k")
    with pytest.raises(InputError, match="annotation id 1000 has 21 keypoints, not 14"):
        load_annotations(dataset.annotations, find_keypoints("crowdpose"))


def test_the_precision_of_several_categories_is_compared_by_their_mean(tmp_path: Path) -> None:
    dataset = drawn(tmp_path / "dataset", "ap10k")
    annotations, reference = disturbed(dataset, find_keypoints("ap10k"), seed=1)
    _, candidate = disturbed(dataset, find_keypoints("ap10k"), seed=2)
    compared = dict(bootstrap_predictions(annotations, reference, candidate, Sampling(resamples=100))[0].comparisons())
    assert len(annotations.categories) == 3
    for name in ("AP", "AP50", "APM", "APL", "AR"):
        both = [score(one, annotations)[1][name] for one in (reference, candidate)]
        assert [compared[name].reference, compared[name].candidate] == pytest.approx(both), name


def test_networks_are_compared_by_pck_where_there_are_no_sigmas(tmp_path: Path) -> None:
    keypoints = find_keypoints("onehand10k")
    dataset = drawn(tmp_path / "dataset", "onehand10k")
    annotations, reference = disturbed(dataset, keypoints, seed=1)
    _, candidate = disturbed(dataset, keypoints, seed=2)
    drawn_pairs, draws = bootstrap_predictions(annotations, reference, candidate, Sampling(resamples=100))
    compared = dict(drawn_pairs.comparisons())
    for name, comparison in compared.items():
        both = [score(one, annotations)[1][name] for one in (reference, candidate)]
        assert [comparison.reference, comparison.candidate] == pytest.approx(both), name
        assert comparison.interval is not None
        assert comparison.interval[0] <= comparison.interval[1]
    assert set(compared) == {"PCK", "AUC", "EPE", "NME"}
    kept = drawn_pairs.share_kept()
    assert kept is not None
    assert kept.value == pytest.approx(drawn_pairs.observed["PCK"][1] / drawn_pairs.observed["PCK"][0])
    assert draws.draws.shape == (100, len(annotations.images))


def test_the_loss_without_sigmas_is_the_normalised_mean_error_to_fp32(tmp_path: Path) -> None:
    dataset = drawn(tmp_path / "dataset", "onehand10k")
    _, reference = disturbed(dataset, find_keypoints("onehand10k"), seed=1)
    moved = Poses(**(vars(reference.poses) | {"keypoints": reference.poses.keypoints + np.array([3, 4], np.float32)}))
    shift = shift_of_predictions(reference, replace(reference, poses=moved))
    sides = (reference.bboxes[:, 2:] - reference.bboxes[:, :2]).astype(np.float64)
    np.testing.assert_allclose(1 - shift.oks, 5 / np.sqrt(0.53 * sides.prod(axis=1)), rtol=1e-5)


def test_head_sizes_count_for_mpii_only(tmp_path: Path) -> None:
    dataset = drawn(tmp_path / "dataset", "mpii")
    for name, measured in (("mpii", True), ("own.yaml", False)):
        annotations, predictions = disturbed(dataset, replace(find_keypoints("mpii"), name=name))
        assert ("PCKh" in score(predictions, annotations)[1]) == measured


def test_keypoints_without_sigmas_are_refused_in_detected_boxes_before_anything_is_computed(tmp_path: Path) -> None:
    dataset = drawn(tmp_path / "dataset", "onehand10k")
    with pytest.raises(InputError, match="have no sigmas, and are measured in annotated boxes only"):
        evaluation_instances(dataset.annotations, tmp_path / "boxes.json", find_keypoints("onehand10k"))


def test_17_keypoints_of_other_names_are_not_taken_for_cocos(tmp_path: Path) -> None:
    dataset = drawn(tmp_path / "dataset", "coco")
    content = json.loads(dataset.annotations.read_text())
    content["categories"][0]["keypoints"] = list(find_keypoints("h36m").names)
    dataset.annotations.write_text(json.dumps(content))
    assert not load_annotations(dataset.annotations).keypoints.is_known


def test_people_whose_number_of_keypoints_and_area_are_missing_are_completed(tmp_path: Path) -> None:
    dataset = drawn(tmp_path / "dataset", "onehand10k")
    content = json.loads(dataset.annotations.read_text())
    for person in content["annotations"]:
        del person["num_keypoints"]
        person["area"] = 0
    dataset.annotations.write_text(json.dumps(content))
    people = load_annotations(dataset.annotations, find_keypoints("onehand10k")).coco.anns.values()
    for person in people:
        assert person["num_keypoints"] == sum(flag > 0 for flag in person["keypoints"][2::3])
        assert person["area"] == pytest.approx(0.53 * person["bbox"][2] * person["bbox"][3])


def test_two_sets_of_keypoints_are_not_compared(tmp_path: Path) -> None:
    one = identity_of(draw_dataset(tmp_path / "dataset"), 1)
    require_common_ground(one, {**one, "keypoints": COCO.listed()}, ("a", "b"))
    with pytest.raises(InputError, match="set of keypoints is"):
        require_common_ground(one, {**one, "keypoints": find_keypoints("ap10k").listed()}, ("a", "b"))
