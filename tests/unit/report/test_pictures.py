"""Pictures of a small network's poses on a drawn dataset, and their parts by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from tests.unit.evaluation_fixtures import draw_dataset
from tests.unit.pose_fixtures import SPEC, pose_network

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.keypoints import KEYPOINTS, SKELETON
from posequant.data.crops import Cropper
from posequant.data.dataset import load_annotations, read_image
from posequant.evaluate.decode import average_with_mirrored, mirror
from posequant.evaluate.oks import shift_of_predictions
from posequant.evaluate.predict import make_predictions
from posequant.evaluate.predictions import Predictions
from posequant.networks.ncnn import NcnnNetwork
from posequant.report.pictures import make_pictures
from posequant.report.pictures_choice import choose
from posequant.report.pictures_drawing import CANDIDATE, REFERENCE, Heatmaps, Panel, Skeleton, composite
from posequant.report.pictures_frame import LONGER_SIDE, Frame
from posequant.report.pictures_page import render
from posequant.workflow.settings.report import Pictures

SETTINGS = Pictures(worst=2, typical=1, random=1)


class Case(NamedTuple):
    """Everything that pictures are made of."""

    predictions: Path
    reference: Path
    annotations: Path
    images: Path
    model: Path
    artifacts: tuple[Path, Path]
    reference_artifacts: tuple[Path, Path]

    def draw(self, folder: Path, settings: Pictures = SETTINGS) -> dict[str, Any]:
        return make_pictures(**self._asdict(), settings=settings, folder=folder / "pictures", link="pictures")


def make_case(folder: Path, *, detected: bool = False, flip_test: bool = False) -> Case:
    dataset = draw_dataset(folder / "val")
    model, files = folder / "model.json", (folder / "net.param", folder / "net.bin")
    SPEC.save(model)
    pose_network().write(*files)
    paths = []
    for precision in ("bf16", "fp32"):
        paths.append(folder / f"{precision}.npz")
        make_predictions(
            model=model,
            variant=f"ncnn-{precision}",
            backend="ncnn",
            precision=precision,
            artifacts=files,
            images=dataset.images,
            annotations=dataset.annotations,
            detections=dataset.detections if detected else None,
            flip_test=flip_test,
            threads=1,
        ).save(paths[-1])
    return Case(paths[0], paths[1], dataset.annotations, dataset.images, model, files, files)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def drawn(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("drawn")
    return case.draw(folder), folder


def size_of(picture: Path) -> tuple[int, int]:
    """Its width and height."""
    pixels = cv2.imread(str(picture))
    assert pixels is not None, picture
    return pixels.shape[1], pixels.shape[0]


# Whose


def test_choice_by_hand() -> None:
    losses = np.array([0.1, 0.5, np.nan, 0.3, 0.0, 0.2, 0.4])  # the median is 0.25
    chosen = choose(losses, Pictures(worst=2, typical=2, random=0))
    assert [(one.choice, one.rank, one.row) for one in chosen] == [
        ("worst", 1, 1),
        ("worst", 2, 6),
        ("typical", 1, 3),
        ("typical", 2, 5),
    ]


def test_nobody_is_chosen_twice_and_nobody_without_a_loss() -> None:
    losses = np.array([0.1, np.nan, 0.1, 0.3, 0.0])
    rows = [one.row for one in choose(losses, Pictures(worst=3, typical=3, random=3))]
    assert sorted(rows) == [0, 2, 3, 4]
    assert choose(np.full(3, np.nan), Pictures()) == []


def test_random_choice_depends_on_the_seed_not_on_the_losses() -> None:
    def drawn_at_random(losses: Any, seed: int) -> list[int]:
        return [one.row for one in choose(losses, Pictures(worst=0, typical=0, random=5, seed=seed))]

    rows = np.random.default_rng(0).random((2, 100))
    assert drawn_at_random(rows[0], 0) == drawn_at_random(rows[1], 0)
    assert drawn_at_random(rows[0], 0) != drawn_at_random(rows[0], 1)


# Where


@pytest.mark.parametrize(
    ("box", "point"),
    [
        pytest.param([[60, 50], [90, 120]], (75, 100), id="small, enlarged"),
        pytest.param([[100, 80], [900, 700]], (811, 333), id="large, reduced"),
        pytest.param([[-40, 600], [300, 900]], (3, 795), id="over the lower left corner"),
        pytest.param([[700, -50], [1100, 200]], (996, 2), id="over the upper right corner"),
    ],
)
def test_points_land_where_they_belong(box: Any, point: tuple[int, int]) -> None:
    image = np.zeros((800, 1000, 3), np.uint8)
    x, y = point
    image[y - 2 : y + 3, x - 2 : x + 3] = 255
    frame = Frame.around(np.array(box, np.float64), (1000, 800))
    photograph = frame.photograph(image).astype(np.float64).sum(axis=2)
    assert photograph.shape[::-1] == frame.size
    assert max(frame.size) == LONGER_SIDE
    rows, columns = np.indices(photograph.shape)
    middle = [((places + 0.5) * photograph).sum() / photograph.sum() for places in (columns, rows)]
    np.testing.assert_allclose(frame.place(np.array([x + 0.5, y + 0.5])), middle, atol=0.3)


@pytest.mark.parametrize("box", [[[300, 300], [400, 400]], [[50, 50], [50, 50]], [[-90, -9], [-5, -5]]])
def test_frame_is_a_part_of_the_image(box: Any) -> None:
    frame = Frame.around(np.array(box, np.float64), (200, 100))
    assert 0 <= frame.left < frame.right <= 200
    assert 0 <= frame.top < frame.bottom <= 100


# The list


def test_list_has_what_its_readers_expect(drawn: tuple[dict[str, Any], Path], case: Case) -> None:
    pictures, folder = drawn
    assert json.loads(json.dumps(pictures, allow_nan=False)) == pictures
    assert (pictures["schema"], pictures["variant"], pictures["reference"]) == (1, "ncnn-bf16", "ncnn-fp32")
    assert pictures["keypoint_names"] == list(KEYPOINTS)
    assert pictures["skeleton"] == [list(limb) for limb in SKELETON]
    assert pictures["settings"] == SETTINGS.filled()
    assert pictures["sha256"]["predictions"] == sha256(case.predictions)
    assert [(one["choice"], one["rank"]) for one in pictures["people"]] == [
        ("worst", 1),
        ("worst", 2),
        ("typical", 1),
        ("random", 1),
    ]
    for person in pictures["people"]:
        assert size_of(folder / person["photograph"]) == tuple(person["size"])
        assert (folder / person["photograph"]).stat().st_size <= 20_000
        assert [len(person[key]) for key in ("reference", "candidate", "annotation", "shifts")] == [17] * 4
        assert (folder / person["compared"]).is_file()


def test_losses_and_shifts_are_those_of_the_certificate(drawn: tuple[dict[str, Any], Path], case: Case) -> None:
    reference = Predictions.load(case.reference)
    shift = shift_of_predictions(reference, Predictions.load(case.predictions))
    people = drawn[0]["people"]
    assert people[0]["loss"] == pytest.approx(1 - np.nanmin(shift.oks))
    for person in people:
        (row,) = np.flatnonzero(reference.ids == person["annotation_id"])
        assert person["loss"] == pytest.approx(1 - shift.oks[row])
        moved = zip(shift.pixels[row], shift.counted[row], strict=True)
        expected = [round(one, 3) if sure else None for one, sure in moved]
        assert person["shifts"] == expected
        farthest = max(one for one in expected if one is not None)
        assert person["moved_most"]["pixels"] == farthest
        assert person["shifts"][KEYPOINTS.index(person["moved_most"]["joint"])] == farthest
        assert person["box"][2:] == pytest.approx((reference.bboxes[row, 2:] - reference.bboxes[row, :2]), abs=0.01)


def test_poses_are_in_the_coordinates_of_the_photograph(drawn: tuple[dict[str, Any], Path], case: Case) -> None:
    reference, annotated = Predictions.load(case.reference), load_annotations(case.annotations)
    for person in drawn[0]["people"]:
        (row,) = np.flatnonzero(reference.ids == person["annotation_id"])
        truth = np.array(annotated.coco.anns[person["annotation_id"]]["keypoints"], np.float64).reshape(17, 3)
        in_image = np.vstack([reference.poses.keypoints[row], truth[:, :2]])
        in_photograph = np.array(person["reference"] + person["annotation"])[:, :2]
        # One corner of the image for all of them, and whole: up to what rounding the shorter side moves.
        corners = in_image - in_photograph * person["scale"]
        np.testing.assert_allclose(corners, np.rint(corners[:1]).repeat(34, axis=0), atol=1)
        assert [one[2] for one in person["annotation"]] == truth[:, 2].tolist()


@pytest.mark.parametrize("flip_test", [False, True])
def test_heatmaps_are_those_that_the_networks_make(flip_test: bool, tmp_path: Path) -> None:
    case = make_case(tmp_path, flip_test=flip_test)
    person = case.draw(tmp_path, Pictures(worst=1, typical=0, random=0))["people"][0]
    joint = KEYPOINTS.index(person["moved_most"]["joint"])
    annotated, reference, cropper = load_annotations(case.annotations), Predictions.load(case.reference), Cropper(SPEC)
    (row,) = np.flatnonzero(reference.ids == person["annotation_id"])
    image = next(one for one in annotated.images if one.id == person["image"]["id"])
    crop = cropper.normalise(cropper.cut(read_image(case.images, image), reference.bboxes[row])[0][np.newaxis])
    maps = []
    for precision in ("fp32", "bf16"):
        network = NcnnNetwork(*case.artifacts, precision, SPEC.input_shape)
        outputs = network.forward(crop)
        if flip_test:
            outputs = average_with_mirrored(outputs, network.forward(mirror(crop)), SPEC)
        maps.append(outputs[0][0, joint])
    assert person["heatmaps"]["largest_difference"] == pytest.approx(float(abs(maps[1] - maps[0]).max()))
    for kind in ("reference", "candidate", "difference"):
        assert size_of(tmp_path / person["heatmaps"][kind])[::-1] == maps[0].shape


def test_output_that_is_no_heatmap_has_none(case: Case, tmp_path: Path) -> None:
    codec = {"type": "SimCCLabel", "input_size": list(SPEC.input_size), "sigma": 6.0, "simcc_split_ratio": 2.0}
    model = tmp_path / "model.json"
    replace(SPEC, codec=codec, output_names=("simcc_x", "simcc_y")).save(model)
    paths = []
    for path in (case.predictions, case.reference):
        made = Predictions.load(path)
        hashes = made.identity["sha256"] | {"model": sha256(model)}
        paths.append(tmp_path / path.name)
        replace(made, identity=made.identity | {"sha256": hashes}).save(paths[-1])
    pictures = case._replace(predictions=paths[0], reference=paths[1], model=model).draw(tmp_path)
    assert [person["heatmaps"] for person in pictures["people"]] == [None] * 4
    assert "heatmaps" not in render(pictures)


def test_detected_boxes_have_the_annotation_that_they_overlap(tmp_path: Path) -> None:
    case = make_case(tmp_path, detected=True)
    annotated = load_annotations(case.annotations)
    everyone = len(Predictions.load(case.reference).ids)
    people = case.draw(tmp_path, Pictures(worst=everyone, typical=0, random=0))["people"]
    assert {person["annotation_id"] is None for person in people} == {True, False}
    for person in people:
        assert person["detection"] is not None
        left, top, width, height = person["box"]
        if person["annotation_id"] is None:
            assert person["annotation"] is None
            continue
        truth = annotated.coco.anns[person["annotation_id"]]
        assert truth["image_id"] == person["image"]["id"]
        # Detections of the drawn dataset are annotated boxes, moved a little.
        np.testing.assert_allclose([left, top, width, height], np.maximum(truth["bbox"], 1), atol=15)


def test_same_people_give_the_same_bytes(drawn: tuple[dict[str, Any], Path], case: Case, tmp_path: Path) -> None:
    assert case.draw(tmp_path) == drawn[0]
    once, again = (
        {path.name: path.read_bytes() for path in (one / "pictures").iterdir()} for one in (drawn[1], tmp_path)
    )
    assert once == again


def test_image_that_cannot_be_read_is_named(case: Case, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in case.images.iterdir():
        (images / path.name).write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=rf"{images}/0.*\.jpg: the image is damaged"):
        case._replace(images=images).draw(tmp_path)


def test_nobody_to_show(case: Case, tmp_path: Path) -> None:
    pictures = case.draw(tmp_path, Pictures(worst=0, typical=0, random=0))
    assert pictures["people"] == []
    assert "Nobody is shown" in render(pictures)


# What is drawn


def test_page_names_people_and_shows_them(drawn: tuple[dict[str, Any], Path]) -> None:
    pictures, folder = drawn
    page = render(pictures)
    for person in pictures["people"]:
        assert f"`{person['image']['file_name']}`, image {person['image']['id']}" in page
        assert f"annotation {person['annotation_id']}," in page
        assert f"]({person['compared']})" in page
        joint, pixels = person["moved_most"].values()
        assert (f"Moved most: `{joint}`, by {pixels:.1f} px" if pixels else "No keypoint moved") in page
        assert size_of(folder / person["compared"])[0] == 2 * LONGER_SIDE + 8


def test_joints_have_their_colors_at_their_places() -> None:
    photograph = np.full((LONGER_SIDE, LONGER_SIDE, 3), 128, np.uint8)
    places, shown = np.full((17, 2), 40.5), np.zeros(17, bool)
    places[[5, 7]] = [[100.5, 80.5], [200.5, 240.5]]
    shown[[5, 7]] = True
    panels = [
        Panel("net", photograph, [Skeleton(places, SKELETON, shown, color)], None) for color in (REFERENCE, CANDIDATE)
    ]
    picture = composite(panels, None, ())
    top = len(picture) - LONGER_SIDE
    for left, color in ((0, REFERENCE), (LONGER_SIDE + 8, CANDIDATE)):
        expected = list(bytes.fromhex(color[1:]))[::-1]
        for x, y in ((100, 80), (200, 240), (150, 160)):  # two joints, and the limb between them
            assert picture[top + y, left + x].tolist() == expected
        assert picture[top + 40, left + 40].tolist() == [128] * 3


def test_colors_of_heatmaps_by_hand() -> None:
    reference = np.zeros((3, 4), np.float32)
    candidate = reference.copy()
    reference[1, 2], candidate[2, 0] = 1.0, 0.5
    maps = Heatmaps.of(reference, candidate)
    assert (maps.peaks, maps.largest_difference) == (((2, 1), (0, 2)), 1.0)
    viridis = cv2.applyColorMap(np.array([[0, 128, 255]], np.uint8), cv2.COLORMAP_VIRIDIS)[0]
    # On one scale: half of what the reference has is half of the colours.
    assert maps.reference[1, 2].tolist() == viridis[2].tolist()
    assert maps.candidate[2, 0].tolist() == viridis[1].tolist()
    blue, _, red = maps.difference[1, 2].tolist()
    assert blue > red
    blue, _, red = maps.difference[2, 0].tolist()
    assert red > blue
    assert maps.difference[0, 0].tolist() == [255] * 3
    assert Heatmaps.of(reference, reference).largest_difference == 0
