"""The certificate of a small INT8 network on a drawn dataset, and its parts by hand."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tests.unit.certificate_fixtures import Case, make_case
from tests.unit.export_fixtures import in_a_process_of_its_own, save_onnx_by_hand
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Builder, draw_crops, small_network, write_crops
from tests.unit.pose_fixtures import SPEC
from tests.vulkan import needs_vulkan
from threadpoolctl import threadpool_info, threadpool_limits

from posequant.base.errors import InputError
from posequant.base.files import sha256, write_json
from posequant.base.keypoints import COCO, KEYPOINTS
from posequant.base.verify import hashes
from posequant.certify.joints import joint_costs, nearest_box
from posequant.certify.page import render, stated
from posequant.certify.poses import PartCost, PoseCost, pose_cost
from posequant.data.dataset import load_annotations
from posequant.evaluate.bootstrap import ImageDraws, draw_images
from posequant.evaluate.keypoint_metrics import evaluate_predictions
from posequant.evaluate.oks import pose_shift, similarity
from posequant.evaluate.predictions import Poses, Predictions
from posequant.export.convert import convert_to_openvino
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import describe_layers, kernel_class, totals
from posequant.networks.vulkan import find_device
from posequant.quantize.ncnn2int8 import quantize_files
from posequant.quantize.ncnn2table import write_table
from posequant.quantize.onnxruntime import quantize_onnxruntime
from posequant.quantize.openvino import quantize_openvino


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("certificate"))


def test_figures_are_those_of_the_evaluation(case: Case) -> None:
    certificate = case.certify()
    for key, path in (("candidate", case.predictions), ("reference", case.reference)):
        metrics, _ = evaluate_predictions(path, case.annotations)
        for name in ("AP", "AP50", "AP75", "APM", "APL", "AR"):
            assert certificate["statistics"][name][key] == pytest.approx(metrics["statistics"][name], abs=1e-12)
    difference = certificate["statistics"]["AP"]
    assert difference["difference"] == pytest.approx(difference["candidate"] - difference["reference"])
    low, high = difference["interval"]
    assert low <= difference["difference"] <= high
    assert certificate["share_of_fp32"]["value"] == pytest.approx(difference["candidate"] / difference["reference"])
    assert [target["target"] for target in certificate["share_of_fp32"]["targets"]] == [0.99, 0.999]


def test_sums_of_draws_are_taken_on_one_thread(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spying(*arguments: Any) -> PoseCost:
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return pose_cost(*arguments)

    monkeypatch.setattr("posequant.certify.certify.pose_cost", spying)
    with threadpool_limits(2, user_api="blas"):
        case.certify()
    assert set(seen) == {1}


def test_certificate_names_what_it_rests_on(case: Case) -> None:
    certificate = case.certify()
    assert (certificate["variant"], certificate["reference"]) == ("ncnn-int8", "ncnn")
    assert certificate["sha256"]["predictions"] == sha256(case.predictions)
    assert certificate["sha256"]["artifact"] == {path.name: sha256(path) for path in case.artifacts}
    assert certificate["calibration"]["sha256"] == sha256(case.calibration)
    assert certificate["calibration"]["people"] == 4
    assert certificate["calibration"]["evaluation"]["overlap"] == 0


def test_certificate_is_the_same_every_time(case: Case) -> None:
    assert json.dumps(case.certify()) == json.dumps(case.certify())


def test_outputs_are_compared_on_calibration_crops(case: Case) -> None:
    crops = draw_crops(4)
    full, int8 = (
        NcnnNetwork(*files, precision, INPUT_SHAPE).forward(crops)[0].astype(np.float64)
        for precision, files in (("fp32", case.reference_artifacts), ("int8", case.artifacts))
    )
    outputs = case.certify()["outputs"]
    assert outputs["crops"] == 4
    assert outputs["sqnr_db"] == pytest.approx(10 * np.log10((full**2).sum() / ((int8 - full) ** 2).sum()))
    assert outputs["max_abs"] == pytest.approx(abs(int8 - full).max())


def test_reference_of_another_network_is_refused(case: Case) -> None:
    with pytest.raises(InputError, match=r"ncnn\.npz: made by another network than .*int8\.param"):
        case.certify(reference_artifacts=case.artifacts)


def test_page_says_what_the_certificate_says(case: Case) -> None:
    certificate = case.certify()
    page = render(certificate)
    difference = certificate["statistics"]["AP"]
    low, high = difference["interval"]
    assert f"**{difference['difference']:+.4f} [{low:+.4f}, {high:+.4f}]**" in page
    for joint in ("nose", "left_ankle"):
        assert f"| {joint} " in page
    for layer in certificate["layers"]:
        assert f"| {layer['name']} " in page
    assert "With INT8 Winograd on and off the network gives the same bits on 4 calibration crops." in page
    assert sha256(case.calibration) in page
    assert f"outputs: **{certificate['outputs']['sqnr_db']:.1f} dB** against FP32" in page


def test_layers_and_their_work(tmp_path: Path) -> None:
    model, network = quantized_small_network(tmp_path)
    records = {record.name: record for record in describe_layers(model, network)}
    size = 16 * 12
    expected = {
        "conv_a": ("3x3 stride 1, Winograd", 6, size * 8 * 3 * 9),
        "conv_b": ("1x1", 8, size * 8 * 8),
        "convdw_c": ("depthwise 3x3", 8, size * 8 * 9),
        "conv_d": ("3x3 stride 1, Winograd", 6, size * 8 * 8 * 9),
        "fc": ("inner product", 8, 6 * 8 * size),
    }
    for name, (kernel, bits, macs) in expected.items():
        record = records[name]
        assert (record.kernel, record.stored, record.bits, record.macs) == (kernel, "int8", bits, macs), name
        assert record.weights is not None
        assert max(map(abs, record.weights)) == 2 ** (bits - 1) - 1
        assert not record.can_overflow
    work = totals(list(records.values()))
    assert work["int8"] == 1
    assert sum(work["bits"].values()) == pytest.approx(1)
    (scale,) = model.named("conv_a")[1]["bottom_scales"]
    assert records["conv_a"].activation_scale == scale


def quantized_small_network(folder: Path, keep_float: tuple[str, ...] = ()) -> tuple[NcnnModel, NcnnNetwork]:
    write_crops(folder / "crops", draw_crops(2))
    files = small_network().write(folder)
    write_table(folder / "table", *files, folder / "crops", "kl")
    out = folder / "int8.param", folder / "int8.bin"
    quantize_files(*files, folder / "table", *out, keep_float=keep_float)
    return NcnnModel.read(*out), NcnnNetwork(*out, "int8", INPUT_SHAPE)


def test_float_layers_have_no_bits(tmp_path: Path) -> None:
    model, network = quantized_small_network(tmp_path, keep_float=("conv_d",))
    records = describe_layers(model, network)
    (left,) = [record for record in records if record.bits is None]
    assert (left.name, left.stored, left.weights, left.bounds) == ("conv_d", "float16", None, [])
    assert totals(records)["float"] == pytest.approx(left.macs / sum(record.macs for record in records))


def test_kernel_classes() -> None:
    weight = np.ones((8, 8, 3, 3), np.float32)
    (strided,) = Builder().convolution("c", "a", "b", weight, stride=2).layers
    assert kernel_class(strided) == "3x3 stride 2"
    (plain,) = Builder().convolution("c", "a", "b", weight).layers
    assert kernel_class(plain) == "3x3 stride 1, Winograd"
    assert kernel_class(replace(plain, params={**plain.params, 31: "64"})) == "3x3 stride 1, direct"
    (wide,) = Builder().convolution("c", "a", "b", np.ones((8, 8, 3, 1), np.float32)).layers
    assert kernel_class(wide) == "1x3 stride 1"
    assert kernel_class(replace(plain, type="DeconvolutionDepthWise")) == "depthwise deconvolution 3x3"


def test_similarity_by_hand() -> None:
    truth = np.zeros((17, 2))
    moved = truth.copy()
    moved[0] = [3, 4]
    sigma = float(np.array(COCO.sigmas, np.float32)[0])
    agreement = similarity(moved, truth, np.array(900.0), COCO.sigmas)
    assert agreement[0] == pytest.approx(np.exp(-25 / (2 * 900 * (2 * sigma) ** 2)))
    np.testing.assert_array_equal(agreement[1:], 1)


def test_shift_by_hand() -> None:
    rng = np.random.default_rng(0)
    reference = rng.uniform(0, 100, (3, 17, 2)).astype(np.float32)
    scores = np.zeros((3, 17), np.float32)
    scores[0, :2], scores[1, 5] = 0.9, 0.3
    scores[1, 6] = 0.2  # not above the threshold
    bboxes = np.array([[10, 20, 50, 110], [0, 0, 30, 30], [0, 0, 1, 1]], np.float32)
    keypoints = reference.copy()
    keypoints[0, 0] += [3, 4]
    keypoints[1, 6] += 1000
    shift = pose_shift(keypoints, reference, scores, bboxes, COCO.sigmas)
    moved = np.exp(-25 / (2 * 0.53 * 40 * 90 * (2 * float(np.array(COCO.sigmas, np.float32)[0])) ** 2))
    np.testing.assert_allclose(shift.oks, [(moved + 1) / 2, 1, np.nan], rtol=1e-6)
    assert shift.mean_oks == pytest.approx(((moved + 1) / 2 + 1) / 2)
    assert shift.counted.sum(axis=1).tolist() == [2, 1, 0]
    assert shift.pixels[0, :2] == pytest.approx([5, 0], abs=1e-4)
    # The smallest area is a pixel.
    assert shift.areas.tolist() == pytest.approx([0.53 * 3600, 0.53 * 900, 1])


DRAWS = draw_images(6, 200, 0)


def cost_of(case: Case, reference: Predictions, candidate: Predictions, draws: Any = DRAWS) -> PoseCost:
    return pose_cost(reference, candidate, ImageDraws.of(load_annotations(case.annotations), draws, 0.95))


def moved_in_one_image(full: Predictions, pixels: float) -> Predictions:
    """The same predictions with every keypoint in the first image that many pixels to the right."""
    keypoints = full.poses.keypoints.copy()
    keypoints[full.image_ids == full.image_ids[0], :, 0] += pixels
    return replace(full, poses=replace(full.poses, keypoints=keypoints))


def test_poses_and_their_intervals_by_hand(case: Case) -> None:
    full = Predictions.load(case.reference)
    cost = cost_of(case, full, moved_in_one_image(full, 3.0))
    images = sorted(image.id for image in load_annotations(case.annotations).images)
    there = full.image_ids == full.image_ids[0]
    assert (cost.people, cost.keypoints) == (len(full.ids), 17 * len(full.ids))
    assert cost.within is not None
    assert cost.oks is not None
    assert [cost.within[limit].value for limit in "12"] == pytest.approx([1 - there.mean()] * 2)
    assert cost.within["4"].value == 1
    assert cost.within["4"].interval == (1, 1)
    # Slowly and literally: the people of the drawn images, one draw after the other.
    of_people = np.where(there, pose_shift_of(full, 3.0), 1.0)
    drawn = []
    for draw in DRAWS:
        drawn_images = [image for image, times in zip(images, draw.tolist(), strict=True) for _ in range(times)]
        rows = np.concatenate([np.flatnonzero(full.image_ids == image) for image in drawn_images])
        drawn.append((of_people[rows].mean(), 1 - there[rows].mean()))
    for estimate, values in zip((cost.oks, cost.within["2"]), zip(*drawn, strict=True), strict=True):
        assert estimate.interval == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))
    assert cost.oks.value == pytest.approx(of_people.mean())


def pose_shift_of(full: Predictions, pixels: float) -> Any:
    """OKS of everybody whose keypoints all move that far."""
    width, height = (full.bboxes[:, 2:].astype(float) - full.bboxes[:, :2]).T
    spread = 2 * 0.53 * width * height * (2 * np.array(COCO.sigmas, np.float32).astype(float)[:, np.newaxis]) ** 2
    return np.exp(-(pixels**2) / spread).mean(axis=0)


def test_poses_that_are_equal_or_unknown(case: Case) -> None:
    full = Predictions.load(case.reference)
    same = cost_of(case, full, full)
    assert same.oks is not None
    assert (same.oks.value, same.oks.interval, same.oks.left_out) == (1, (1, 1), 0)
    assert same.pixels == {"mean": 0, "median": 0, "p95": 0}
    unsure = replace(full, poses=replace(full.poses, keypoint_scores=np.zeros_like(full.poses.keypoint_scores)))
    assert cost_of(case, unsure, full) == PoseCost(0, 0, None, None, None, None)


def some_move(full: Predictions) -> Predictions:
    """The same predictions with keypoints moved by 0 to 6 pixels, and the reference's scores as they are."""
    rng = np.random.default_rng(5)
    moves = rng.uniform(-3, 3, full.poses.keypoints.shape).astype(np.float32)
    return replace(full, poses=replace(full.poses, keypoints=full.poses.keypoints + moves))


@pytest.mark.parametrize("kind", ["by_joint", "by_size"])
def test_joints_and_sizes_are_counted_one_by_one(case: Case, kind: str) -> None:
    full = Predictions.load(case.reference)
    rng = np.random.default_rng(3)
    scores = np.where(rng.random((len(full.ids), 17)) < 0.3, np.float32(0.1), np.float32(0.9))
    # Boxes of a small, a medium and a large person in turn: the areas are 0.53 times their squares.
    sides = np.array([30, 100, 200], np.float32)[np.arange(len(full.ids)) % 3]
    bboxes = np.column_stack([np.zeros_like(sides), np.zeros_like(sides), sides, sides])
    full = replace(full, bboxes=bboxes, poses=replace(full.poses, keypoint_scores=scores))
    candidate = some_move(full)
    cost = cost_of(case, full, candidate, DRAWS[:50])
    images = sorted(image.id for image in load_annotations(case.annotations).images)
    # Slowly and literally: each keypoint of each person of each drawn image.
    found: dict[str, list[list[tuple[float, bool]]]] = {}
    sigmas = np.array(COCO.sigmas, np.float32).astype(float)
    for person in range(len(full.ids)):
        area = 0.53 * float(sides[person]) ** 2
        size = "small" if area < 32**2 else "medium" if area < 96**2 else "large"
        parts: dict[str, list[tuple[float, bool]]] = {}
        for joint, name in enumerate(KEYPOINTS):
            if scores[person, joint] > 0.2:
                apart = candidate.poses.keypoints[person, joint].astype(float) - full.poses.keypoints[person, joint]
                squared = float((apart**2).sum())
                agreement = np.exp(-squared / (2 * area * (2 * sigmas[joint]) ** 2))
                parts.setdefault(name if kind == "by_joint" else size, []).append((agreement, squared <= 4))
        for name in KEYPOINTS if kind == "by_joint" else ("small", "medium", "large"):
            found.setdefault(name, []).append(parts.get(name, []))

    def figures(people: list[list[tuple[float, bool]]]) -> tuple[float, float]:
        """OKS, the mean over people of their means, and the share of the keypoints within 2 pixels."""
        known = [person for person in people if person]
        if not known:
            return np.nan, np.nan
        oks = np.mean([np.mean([agreement for agreement, _ in person]) for person in known])
        return float(oks), float(np.mean([inside for person in known for _, inside in person]))

    assert [part.name for part in getattr(cost, kind)] == list(found)
    for part in getattr(cost, kind):
        people = found[part.name]
        assert part.people == sum(map(bool, people))
        assert part.keypoints == sum(map(len, people))
        assert (part.oks.value, part.within["2"].value) == pytest.approx(figures(people))
        drawn = []
        for draw in DRAWS[:50]:
            times = dict(zip(images, draw.tolist(), strict=True))
            drawn.append(
                figures(
                    [
                        person
                        for person, image in zip(people, full.image_ids.tolist(), strict=True)
                        for _ in range(times[image])
                    ]
                )
            )
        for estimate, values in zip((part.oks, part.within["2"]), zip(*drawn, strict=True), strict=True):
            known = [value for value in values if not np.isnan(value)]
            assert estimate.interval == pytest.approx(tuple(np.percentile(known, [2.5, 97.5])))
            assert estimate.left_out == len(values) - len(known)


def test_size_that_nobody_has_is_unknown_and_not_in_the_table(case: Case) -> None:
    full = Predictions.load(case.reference)
    large = np.tile(np.array([0, 0, 500, 500], np.float32), (len(full.ids), 1))
    full = replace(full, bboxes=large)
    small, medium, large_ones = cost_of(case, full, some_move(full)).by_size
    assert small == PartCost("small", 0, 0, None, None)
    assert medium.oks is None
    assert large_ones.people == len(full.ids)
    certificate = case.certify()
    sizes = {part["name"]: part for part in certificate["without_labels"]["by_size"]}
    sizes["small"].update(asdict(small))
    page = render(certificate)
    assert "| small " not in page
    assert "| left wrist " in page


def test_draws_without_anybody_are_counted_and_told(case: Case) -> None:
    full = Predictions.load(case.reference)
    scores = np.where((full.image_ids == full.image_ids[0])[:, np.newaxis], full.poses.keypoint_scores, np.float32(0))
    only = replace(full, poses=replace(full.poses, keypoint_scores=scores))
    cost = cost_of(case, only, full)
    place = ImageDraws.of(load_annotations(case.annotations), DRAWS, 0.95).place_of[int(full.image_ids[0])]
    assert cost.oks is not None
    assert cost.oks.left_out == (DRAWS[:, place] == 0).sum() > 0
    certificate = case.certify()
    assert "nobody to measure" in render(certificate)  # few people are large
    assert f"APL {certificate['statistics']['APL']['left_out']}" in render(certificate)
    for comparison in certificate["statistics"].values():
        comparison["left_out"] = 0
    for joint in certificate["joints"]:
        joint["similarity"]["left_out"] = 0
    assert "nobody to measure" not in render(certificate)


def test_one_joint_that_moves_costs_that_joint(case: Case) -> None:
    annotated = load_annotations(case.annotations)
    full = Predictions.load(case.reference)
    keypoints = full.poses.keypoints.copy()
    keypoints[:, 9] += 15
    moved = replace(full, poses=replace(full.poses, keypoints=keypoints))
    joints = joint_costs(annotated, full, moved, ImageDraws.of(annotated, DRAWS, 0.95))
    assert joints[9].name == "left_wrist"
    for index, joint in enumerate(joints):
        comparison = joint.similarity
        assert comparison.difference is not None
        assert comparison.interval is not None
        if index == 9:
            assert comparison.interval[0] <= comparison.difference <= comparison.interval[1] < 0
        else:
            assert comparison.difference == 0
            assert comparison.interval == (0, 0)
    counted = [
        person
        for person in annotated.coco.anns.values()
        if person["id"] in full.ids and person["keypoints"][3 * 9 + 2] > 0
    ]
    assert joints[9].labelled == len(counted)


def detected(full: Predictions, rows: list[int], bboxes: Any, keypoints: Any) -> Predictions:
    """Predictions for detected boxes in the images of some rows."""
    return replace(
        full,
        ids=np.arange(len(rows)),
        image_ids=full.image_ids[rows],
        bboxes=np.asarray(bboxes, np.float32),
        bbox_scores=full.bbox_scores[rows],
        poses=Poses(
            keypoints=np.asarray(keypoints, np.float32),
            keypoint_scores=full.poses.keypoint_scores[rows],
            centers=full.poses.centers[rows],
            scales=full.poses.scales[rows],
        ),
        identity=full.identity | {"protocol": {"boxes": "detections", "flip_test": False}},
    )


def test_neither_network_chooses_the_box_of_a_person(case: Case) -> None:
    """Of two boxes about one person the reference finds its joints by the worse box, the candidate by the better."""
    annotated = load_annotations(case.annotations)
    full = Predictions.load(case.reference)
    person = annotated.coco.anns[int(full.ids[0])]
    truth = np.array(person["keypoints"], np.float32).reshape(17, 3)[:, :2]
    left, top, width, height = person["bbox"]
    better = [left, top, left + width, top + height]
    worse = [left + 0.2 * width, top, left + 1.2 * width, top + height]
    far = truth + 60
    reference, candidate = (detected(full, [0, 0], [worse, better], poses) for poses in ([truth, far], [far, truth]))
    draws = ImageDraws.of(annotated, DRAWS, 0.95)
    joints = joint_costs(annotated, reference, candidate, draws)
    backwards = joint_costs(annotated, candidate, reference, draws)
    labelled = [place for place, joint in enumerate(joints) if joint.labelled]
    assert labelled
    for place in labelled:
        one, other = joints[place].similarity, backwards[place].similarity
        assert one.reference is not None
        assert one.difference is not None
        assert other.difference is not None
        # Both by the better box: there the candidate is right and the reference is not.
        assert one.candidate == 1
        assert one.reference < 0.9
        assert one.difference == -other.difference


def test_box_of_a_person_is_the_one_that_overlaps_most() -> None:
    box = np.array([0, 0, 10, 10])
    shifted = np.array([[5, 0, 15, 10], [2, 0, 12, 10], [20, 20, 30, 30], [0, 2, 10, 12]])
    # Of equal ones, 80 of 120, the first.
    assert nearest_box(shifted, box) == 1
    assert nearest_box(shifted[::-1], box) == 0
    # A third is too little: 50 of 150.
    assert nearest_box(shifted[[0, 2]], box) is None
    assert nearest_box(np.array([[0, 0, 10, 5]]), box) == 0
    assert nearest_box(np.empty((0, 4)), box) is None


def test_person_without_a_box_of_their_own_does_not_count(case: Case) -> None:
    annotated = load_annotations(case.annotations)
    full = Predictions.load(case.reference)
    away = detected(full, [0], [[1000, 1000, 1100, 1100]], full.poses.keypoints[:1])
    joints = joint_costs(annotated, away, away, ImageDraws.of(annotated, DRAWS, 0.95))
    assert {joint.labelled for joint in joints} == {0}
    assert all(joint.similarity.difference is None for joint in joints)


@pytest.mark.parametrize(
    ("exchange", "message"),
    [
        ({"reference": "predictions"}, r"predictions in int8; give those in fp32"),
        ({"predictions": "reference"}, r"predictions in fp32; give those in reduced precision"),
        ({"annotations": "calibration"}, r"not a COCO annotation file"),
        ({"model": "calibration"}, r"made for another model"),
        ({"calibration": "model"}, r"not a calibration set"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(case: Case, exchange: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        case.certify(**{name: getattr(case, other) for name, other in exchange.items()})


@pytest.mark.parametrize(
    ("rows", "message"),
    [([*range(1, 16)], "holds 15 people, but says that it was made for 16"), ([0, *range(16)], "more than once: 1000")],
)
def test_person_missing_or_doubled_in_both_predictions_is_refused(
    case: Case, tmp_path: Path, rows: list[int], message: str
) -> None:
    paths = {}
    for name in ("predictions", "reference"):
        whole = Predictions.load(getattr(case, name))
        columns = {column: getattr(whole, column)[rows] for column in ("ids", "image_ids", "bboxes", "bbox_scores")}
        poses = Poses(**{column: values[rows] for column, values in vars(whole.poses).items()})
        paths[name] = tmp_path / f"{name}.npz"
        replace(whole, **columns, poses=poses).save(paths[name])
    with pytest.raises(InputError, match=rf"predictions\.npz: .*{message}"):
        case.certify(**paths)


def test_predictions_of_another_network_are_refused(case: Case) -> None:
    with pytest.raises(InputError, match=r"made by another network than .*int8\.param and .*float\.bin"):
        case.certify(artifacts=(case.artifacts[0], case.reference_artifacts[1]))


@pytest.mark.parametrize("place", ["artifacts", "reference_artifacts"])
def test_network_that_changed_since_it_was_made_or_predicted_with_is_refused(
    case: Case, tmp_path: Path, place: str
) -> None:
    """One bit in the middle of a .bin: the network runs as before, and a little wrong."""
    param, bin_ = getattr(case, place)
    record, changed = tmp_path / "record.json", tmp_path / bin_.name
    content = bytearray(bin_.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    with pytest.raises(InputError, match=r"\.npz: made by another network"):
        case.certify(**{place: (param, changed)})
    write_json(record, {"sha256": hashes(param, bin_)})
    with pytest.raises(InputError, match=rf"{bin_.name}: changed after it was made: .*record\.json says"):
        case.certify(**{place: (param, changed, record)})
    case.certify(**{place: (param, bin_, record)})


def with_identity(
    path: Path, target: Path, artifacts: tuple[Path, ...], model: Path | None = None, **changed: Any
) -> Path:
    """Write predictions as if they were made by other files."""
    predictions = Predictions.load(path)
    hashes = predictions.identity["sha256"] | {"artifact": {file.name: sha256(file) for file in artifacts}}
    if model:
        hashes |= {"model": sha256(model)}
    replace(predictions, identity=predictions.identity | changed | {"sha256": hashes}).save(target)
    return target


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_float_networks_are_certified_by_what_they_store_and_compute(
    case: Case, precision: str, tmp_path: Path
) -> None:
    files = case.reference_artifacts
    variant = f"ncnn-{precision}"
    predictions = with_identity(
        case.predictions, tmp_path / "predictions.npz", files, precision=precision, variant=variant
    )
    certificate = case.certify(predictions=predictions, artifacts=files)
    assert (certificate["variant"], certificate["precision"], certificate["reference"]) == (variant, precision, "ncnn")
    assert certificate["statistics"] == case.certify()["statistics"]
    full, reduced = (NcnnNetwork(*files, one, INPUT_SHAPE).forward(draw_crops(4))[0] for one in ("fp32", precision))
    difference = float(np.abs(full - reduced).max())
    assert certificate["as_fp32"] == {"crops": 4, "largest_difference": difference, "equal": difference == 0}
    assert {layer["stored"] for layer in certificate["layers"]} == {"float32"}
    assert (certificate["work"]["int8"], certificate["work"]["float"], certificate["overflow"]) == (0, 1, None)
    page = render(certificate)
    assert f"in {precision.upper()} and" in page
    assert "holds the weights as float32" in page
    said = "give the same bits in" if difference == 0 else f"outputs up to {difference:.3g} apart in"
    assert f"{said} {precision.upper()}" in page
    assert "There are no integers to overflow." in page
    assert "INT8" not in page


@needs_vulkan
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_rows_on_vulkan_are_certified_on_the_device_that_predicted(case: Case, precision: str, tmp_path: Path) -> None:
    device = find_device()
    identity: dict[str, Any] = {"backend": "ncnn-vulkan", "device": {"name": device.name, "kind": device.kind}}
    files = case.artifacts if precision == "int8" else case.reference_artifacts
    certificate = case.certify(
        predictions=with_identity(case.predictions, tmp_path / "p.npz", files, precision=precision, **identity),
        reference=with_identity(case.reference, tmp_path / "r.npz", case.reference_artifacts, **identity),
        artifacts=files,
    )
    page = render(certificate)
    assert certificate["device"] == identity["device"]
    assert f"Computed by Vulkan on {device.name}" in page
    if precision == "fp16":
        assert not certificate["as_fp32"]["equal"]
        assert "on this device ncnn holds values in reduced precision" in page
    else:
        on_cpu = case.certify()
        assert certificate["work"] == on_cpu["work"]
        assert certificate["layers"] == on_cpu["layers"]
        assert certificate["outputs"]["sqnr_db"] == pytest.approx(on_cpu["outputs"]["sqnr_db"], abs=1)


def test_rows_of_two_devices_are_refused(case: Case, tmp_path: Path) -> None:
    devices = [{"name": name, "kind": "discrete GPU"} for name in ("one", "two")]
    files = case.artifacts, case.reference_artifacts
    paths = [
        with_identity(path, tmp_path / f"{place}.npz", files[place], backend="ncnn-vulkan", device=devices[place])
        for place, path in enumerate((case.predictions, case.reference))
    ]
    with pytest.raises(InputError, match=r"predicted on one, and .*1\.npz on two. Predict both on one device"):
        case.certify(predictions=paths[0], reference=paths[1])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_other_runtimes_are_certified_by_their_operators(case: Case, backend: str, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (2, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], name="inner", pads=[1] * 4),
        helper.make_node("Conv", ["a", "last"], ["y"], name="outer"),
    ]
    weights = {"weight": weight, "last": np.tile(weight[:1, :2, :1, :1], (17, 1, 1, 1))}
    size = INPUT_SHAPE[1:]
    source = save_onnx_by_hand(tmp_path / "float.onnx", nodes, weights, (1, 3, *size), (1, 17, *size))
    spec = replace(SPEC, input_name="x", output_names=("y",))
    crops = draw_crops(4)
    files: tuple[Path, ...]
    float_files: tuple[Path, ...] = (source,)
    if backend == "onnxruntime":
        files = (tmp_path / "model.onnx",)
        quantize_onnxruntime(source, spec, crops, files[0])
    else:
        convert_to_openvino(source, spec, crops, tmp_path / "float.xml")
        files = (tmp_path / "model.xml", tmp_path / "model.bin")
        float_files = (tmp_path / "float.xml", tmp_path / "float.bin")
        in_a_process_of_its_own(quantize_openvino, *float_files, spec, crops, files[0])
    model = tmp_path / "model.json"
    spec.save(model)
    paths = []
    for path, artifacts in ((case.predictions, files), (case.reference, float_files)):
        variant = Predictions.load(path).identity["variant"].replace("ncnn", backend)
        paths.append(tmp_path / f"{variant}.npz")
        with_identity(path, paths[-1], artifacts, backend=backend, variant=variant, model=model)
    certificate = case.certify(
        predictions=paths[0], reference=paths[1], artifacts=files, reference_artifacts=float_files, model=model
    )
    assert (certificate["variant"], certificate["reference"]) == (f"{backend}-int8", backend)
    assert certificate["statistics"] == case.certify()["statistics"]
    macs = {"inner": size[0] * size[1] * 2 * 3 * 9, "outer": size[0] * size[1] * 17 * 2}
    assert [layer["macs"] for layer in certificate["layers"]] == list(macs.values())
    # ONNX Runtime leaves the last one in float.
    in_int8 = macs["inner"] if backend == "onnxruntime" else sum(macs.values())
    assert certificate["work"]["int8"] == pytest.approx(in_int8 / sum(macs.values()))
    assert certificate["overflow"] is None
    page = render(certificate)
    count = {"onnxruntime": 1, "openvino": 2}[backend]
    assert f"{count} of the 2 operators with weights are INT8, with {certificate['work']['int8']:.1%} of" in page
    for layer in certificate["layers"]:
        assert f"| {layer['name']} " in page
    assert "## Overflow" not in page
    assert "Winograd" not in page


def test_predictions_of_other_people_are_refused(case: Case, tmp_path: Path) -> None:
    full = Predictions.load(case.reference)
    other = tmp_path / "other.npz"
    replace(full, ids=full.ids[::-1].copy()).save(other)
    with pytest.raises(InputError, match=r"other people, or in another order"):
        case.certify(reference=other)
    replace(full, identity=full.identity | {"protocol": {"boxes": "detections", "flip_test": False}}).save(other)
    with pytest.raises(InputError, match=r"and .*other\.npz cannot be compared: protocol is"):
        case.certify(reference=other)


def test_calibration_on_an_evaluation_image_is_refused(case: Case, tmp_path: Path) -> None:
    content = json.loads(case.calibration.read_text())
    content["people"][0]["image"]["id"] = 3
    leaky = tmp_path / "calibration.json"
    write_json(leaky, content)
    with pytest.raises(InputError, match=r"image 3 is an evaluation image"):
        case.certify(calibration=leaky)


def test_difference_is_stated_with_the_interval_that_is_known() -> None:
    assert stated({"difference": -0.0061, "interval": (-0.0092, -0.0031)}) == "-0.0061 [-0.0092, -0.0031]"
    assert stated({"difference": -0.0061, "interval": None}) == "-0.0061"
    assert stated({"difference": None, "interval": None}) == "-"
