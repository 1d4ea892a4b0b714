import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.evaluation_fixtures import CODECS, INPUT_SIZE, MEAN, STD, Dataset, draw_dataset

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.model_spec import ModelSpec
from posequant.data.calibration_set import Person, choose_calibration_set, load_people
from posequant.data.crops import Cropper
from posequant.data.dataset import read_image
from posequant.data.wide_crops import DEGREES, SCALES, SHIFT, AugmentedCrops, make_wide_crops, margin, random_views

SCRIPT = Path(__file__).parents[3] / "scripts/distillation_crops.py"
UNCHANGED = np.eye(2, 3)


def model_spec(codec: str) -> ModelSpec:
    """The description of a network that takes crops of `INPUT_SIZE`."""
    return ModelSpec(
        name=codec,
        input_size=INPUT_SIZE,
        mean=MEAN,
        std=STD,
        to_rgb=True,
        padding=1.25,
        use_udp=codec == "udp",
        codec=CODECS[codec],
        flip_mode="heatmap",
        shift_heatmap=codec != "udp",
        input_name="input",
        output_names=("output",),
    )


class Wide(NamedTuple):
    """Wide crops of people, and what they were made of."""

    spec: ModelSpec
    images: Path
    people: Path
    folder: Path

    @property
    def persons(self) -> list[Person]:
        return load_people(self.people)

    def evaluated(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The crops of the people as an evaluation cuts them."""
        cropper = Cropper(self.spec)
        return np.stack([cropper.cut(read_image(self.images, one.image), one.bbox)[0] for one in self.persons])

    def crops(self, threads: int = 1) -> AugmentedCrops:
        return AugmentedCrops(self.folder, self.spec, threads)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("train"), seed=1, first_image=101)


@pytest.fixture(scope="module", params=["msra", "udp"])
def wide(request: pytest.FixtureRequest, training: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Wide:
    folder = tmp_path_factory.mktemp("wide")
    val = draw_dataset(folder / "val")
    spec = model_spec(request.param)
    spec.save(folder / "model.json")
    people = folder / "people.json"
    people.write_text(json.dumps(choose_calibration_set(training.annotations, val.annotations, people=9, seed=0)))
    made = Wide(spec, training.images, people, folder / "crops")
    make_wide_crops(folder / "model.json", people, training.images, made.folder, threads=2)
    return made


def of_everyone(view: np.ndarray[Any, np.dtype[np.float64]], crops: AugmentedCrops) -> np.ndarray[Any, Any]:
    return crops.cut(np.arange(len(crops)), np.tile(view, (len(crops), 1, 1))).astype(np.int16)


def test_unchanged_view_is_the_crop_that_is_evaluated(wide: Wide) -> None:
    found, expected = of_everyone(UNCHANGED, wide.crops()), wide.evaluated()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


def test_view_shifted_by_whole_pixels_has_the_same_pixels(wide: Wide) -> None:
    found = of_everyone(UNCHANGED + np.array([[0, 0, 5], [0, 0, -3]]), wide.crops())
    assert np.abs(found[:, 3:, :-5] - wide.evaluated()[:, :-3, 5:]).max() <= 1


def test_mirrored_view_has_the_same_pixels(wide: Wide) -> None:
    width = wide.spec.input_size[0]
    # The middle of a frame is on a pixel of the crop, or between two where the codec is unbiased.
    axis = width - 1 if wide.spec.use_udp else width
    found = of_everyone(np.array([[-1.0, 0, axis], [0, 1, 0]]), wide.crops())
    columns = np.arange(axis - width + 1, width)
    assert np.abs(found[:, :, columns] - wide.evaluated()[:, :, axis - columns]).max() <= 1


def test_view_is_the_crop_of_a_frame_shifted_and_scaled(wide: Wide) -> None:
    spec, shift, scale = wide.spec, np.array([3.5, -4.25], np.float32), np.float32(1.25)
    center = np.subtract(spec.input_size, spec.use_udp) / 2
    found = of_everyone(np.column_stack([scale * np.eye(2), center + shift - scale * center]), wide.crops())
    cropper = Cropper(spec)
    worst = {False: [0], True: [0]}
    for crop, person in zip(found, wide.persons, strict=True):
        (middle,), (extent,) = cropper.frame(person.bbox[np.newaxis])
        pixels = extent / np.subtract(spec.input_size, spec.use_udp).astype(np.float32)
        expected = cropper.warp(read_image(wide.images, person.image), middle + shift * pixels, extent * scale)
        resized = bool(extent[0] > 2 * spec.input_size[0])
        worst[resized].append(int(np.abs(crop - expected).max()))
    assert [len(differences) > 2 for differences in worst.values()] == [True, True]
    # A crop that is cut out of a resized image is a little smoother.
    assert max(worst[False]) <= 1 < max(worst[True])


def test_beyond_the_image_is_black(training: Dataset, tmp_path: Path) -> None:
    spec = model_spec("msra")
    spec.save(tmp_path / "model.json")
    content = choose_calibration_set(training.annotations, draw_dataset(tmp_path / "v").annotations, people=1, seed=0)
    person = content["people"][0]
    person["image"] |= {"width": 400, "height": 400}
    # The frame is 100x150 pixels and begins 10 left of the image: 6.4 pixels of the crop, which has 64x96.
    person["bbox"] = [0, 100, 80, 220]
    (tmp_path / "people.json").write_text(json.dumps(content))
    cv2.imwrite(str(tmp_path / person["image"]["file_name"]), np.full((400, 400, 3), 255, np.uint8))
    make_wide_crops(tmp_path / "model.json", tmp_path / "people.json", tmp_path, tmp_path / "crops")
    crops = AugmentedCrops(tmp_path / "crops", spec)
    (unchanged,) = of_everyone(UNCHANGED, crops)
    assert unchanged[:, :6].max() == 0
    assert unchanged[:, 7:].min() == 255
    cosine, sine = math.cos(math.radians(DEGREES)), math.sin(math.radians(DEGREES))
    linear = np.array([[cosine, -sine], [sine, cosine]])
    (turned,) = of_everyone(np.column_stack([linear, [6.4, 48] - linear @ [6.4, 48]]), crops)
    rows, columns = np.indices(turned.shape[:2])
    inwards = (columns - 6.4) * cosine - (rows - 48) * sine
    assert turned[inwards < -2].max() == 0
    assert turned[inwards > 2].min() == 255


@given(size=st.tuples(*[st.integers(16, 512)] * 2), udp=st.booleans(), seed=st.integers(0, 1 << 30))
@settings(deadline=None)
def test_margin_holds_whatever_a_view_sees(size: tuple[int, int], udp: bool, seed: int) -> None:
    spec: Any = SimpleNamespace(input_size=size, use_udp=udp)
    views = random_views(spec, np.random.default_rng(seed), 200)
    across, down = size[0] - 1, size[1] - 1
    corners = np.array([(0, 0, 1), (across, 0, 1), (0, down, 1), (across, down, 1)])
    seen = corners @ views.transpose(0, 2, 1)
    beyond = np.max([-seen.min((0, 1)), seen.max((0, 1)) - [across, down]], axis=0)
    assert (beyond <= margin(spec)).all()


def test_views_have_the_ranges_that_are_said(wide: Wide) -> None:
    views = random_views(wide.spec, np.random.default_rng(0), 4000)
    linear = views[..., :2]
    mirrored = np.linalg.det(linear) < 0
    scales = np.sqrt(np.abs(np.linalg.det(linear)))
    degrees = np.degrees(np.arctan2(-linear[:, 0, 1], linear[:, 1, 1]))
    center = np.subtract(wide.spec.input_size, wide.spec.use_udp) / 2
    shifts = (linear @ center + views[..., 2] - center) / wide.spec.input_size
    plain = np.isclose(scales, 1) & (degrees == 0)
    assert [mirrored.mean(), plain.mean()] == pytest.approx([0.5, 0.4], abs=0.03)
    assert [scales[~plain].min(), scales.max()] == pytest.approx(SCALES, abs=0.01)
    assert [degrees.min(), degrees.max()] == pytest.approx([-DEGREES, DEGREES], abs=0.5)
    assert [shifts.min(), shifts.max()] == pytest.approx([-SHIFT, SHIFT], abs=0.001)


def test_batch_follows_from_the_generator_and_not_from_the_threads(wide: Wide) -> None:
    one, two = (wide.crops(threads) for threads in (1, 3))
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    batches = [one.batch(first, 6) for _ in range(3)]
    for batch in batches:
        np.testing.assert_array_equal(two.batch(second, 6), batch)
    assert not np.array_equal(batches[0], batches[1])


def test_batch_is_what_the_network_takes(wide: Wide) -> None:
    crops, generator, same = wide.crops(), np.random.default_rng(5), np.random.default_rng(5)
    batch = crops.batch(generator, 4)
    people = same.choice(len(crops), 4, replace=False)
    expected = Cropper(wide.spec).normalise(crops.cut(people, random_views(wide.spec, same, 4)))
    np.testing.assert_array_equal(batch, expected)
    assert batch.dtype == np.float32
    assert batch.shape == (4, *wide.spec.input_shape)
    assert batch.flags.c_contiguous
    assert len(crops.batch(generator, 3 * len(crops))) == 3 * len(crops)


def test_same_bytes_whatever_the_number_of_threads(wide: Wide, tmp_path: Path) -> None:
    record = make_wide_crops(wide.people.parent / "model.json", wide.people, wide.images, tmp_path / "crops", threads=1)
    for name in ("crops.npy", "frames.npz", "crops.json"):
        assert sha256(tmp_path / "crops" / name) == sha256(wide.folder / name)
    assert record["people"] == len(wide.persons)
    assert record["made_from"] == {"people.json": sha256(wide.people)}
    assert record["sha256"] == wide.crops().sha256


def test_other_geometry_is_refused(wide: Wide) -> None:
    spec = wide.spec
    changes: tuple[dict[str, Any], ...] = ({"padding": 1.5}, {"use_udp": not spec.use_udp}, {"input_size": (96, 64)})
    for change in changes:
        with pytest.raises(InputError, match=r"crops: made for crops of another kind\. Delete it"):
            AugmentedCrops(wide.folder, replace(spec, **change))


@pytest.mark.parametrize("name", ["crops.npy", "frames.npz"])
def test_changed_files_are_refused(wide: Wide, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(wide.folder, tmp_path / "crops"))
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: changed after it was made: its SHA-256 is .* Delete it"):
        AugmentedCrops(folder, wide.spec)


def test_script_writes_all_or_nothing(wide: Wide, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--model", str(wide.people.parent / "model.json")]
    command += ["--people", str(wide.people), "--out", str(tmp_path / "made"), "--images"]
    refused = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "lacks the annotated images" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    subprocess.run([*command, str(wide.images)], capture_output=True, check=True)
    assert sha256(tmp_path / "made/crops.npy") == wide.crops().sha256["crops.npy"]
