"""Reading crops, and what is refused."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.ncnn_fixtures import draw_crops, write_crops
from tests.unit.pose_fixtures import draw_people

from posequant.base.errors import InputError
from posequant.data.crop_files import People, crop_paths, load_crops, read_crop


def test_first_crops_are_loaded_in_order(tmp_path: Path) -> None:
    crops = draw_crops(12)
    write_crops(tmp_path / "crops", crops)
    np.testing.assert_array_equal(load_crops(tmp_path / "crops", 3), crops[:3])
    np.testing.assert_array_equal(load_crops(tmp_path / "crops"), crops[:8])
    np.testing.assert_array_equal(load_crops(tmp_path / "crops", None), crops)


def test_crops_of_a_list_are_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = write_crops(tmp_path / "crops", draw_crops(2))
    assert [path.resolve() for path in crop_paths(Path("crops"))] == paths


def test_crops_can_be_read_in_several_threads(tmp_path: Path) -> None:
    crops = draw_crops(1)
    paths = write_crops(tmp_path / "crops", crops) * 200
    with ThreadPoolExecutor(4) as pool:
        assert all((crop == crops[0]).all() for crop in pool.map(read_crop, paths))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda crop: crop.astype(np.float64), "not a float32 tensor"),
        (lambda crop: crop.astype(np.uint8), "not a float32 tensor"),
        (lambda crop: crop[0], "not a float32 tensor"),
        (np.asfortranarray, "not a float32 tensor .* in C order"),
        (lambda crop: crop.astype(object), "not a .npy file"),
        (lambda crop: crop.transpose(1, 2, 0).copy(), r"has the shape \(16, 12, 3\)"),
        (lambda crop: crop * np.float32(np.inf), "holds NaN or infinity"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("index", [0, 1])
def test_what_is_not_a_crop_is_refused_by_name(
    index: int, damage: Callable[[NDArray[np.float32]], NDArray[np.generic]], message: str, tmp_path: Path
) -> None:
    paths = write_crops(tmp_path / "crops", draw_crops(2))
    np.save(paths[index], damage(np.load(paths[index])))
    with pytest.raises(InputError, match=message) as caught:
        load_crops(tmp_path / "crops")
    assert str(caught.value).startswith(f"{paths[index]}: ")


def test_crops_of_different_shapes_are_refused(tmp_path: Path) -> None:
    paths = write_crops(tmp_path / "crops", draw_crops(2))
    np.save(paths[1], np.load(paths[1])[:, :8].copy())
    with pytest.raises(InputError, match=r"000001\.npy: .* \(3, 8, 12\), but the first one has \(3, 16, 12\)"):
        load_crops(tmp_path / "crops")


def test_files_that_are_not_there_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    with pytest.raises(InputError, match=r"list\.txt: no such file"):
        crop_paths(folder)
    paths = write_crops(folder, draw_crops(2))
    paths[1].write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"000001\.npy: not a \.npy file"):
        load_crops(folder)
    paths[1].unlink()
    with pytest.raises(InputError, match=r"000001\.npy: no such file"):
        load_crops(folder)
    (folder / "list.txt").write_text("\n")
    with pytest.raises(InputError, match=r"list\.txt: the list is empty"):
        crop_paths(folder)


def test_people_are_read_as_written(tmp_path: Path) -> None:
    write_crops(tmp_path / "crops", draw_crops(3))
    people = draw_people(3)
    people.save(tmp_path / "crops")
    read = People.load(tmp_path / "crops")
    for name, values in vars(people).items():
        np.testing.assert_array_equal(getattr(read, name), values, strict=True)
    np.testing.assert_array_equal(read[1:].keypoints, people.keypoints[1:])
    np.testing.assert_array_equal(read[np.array([2, 0])].centers, people.centers[[2, 0]])


def test_damaged_people_are_refused(tmp_path: Path) -> None:
    write_crops(tmp_path / "crops", draw_crops(3))
    with pytest.raises(InputError, match=r"people\.npz"):
        People.load(tmp_path / "crops")
    draw_people(3).save(tmp_path / "crops")
    path = tmp_path / "crops" / "people.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"people\.npz: not the people of crops"):
        People.load(tmp_path / "crops")
    draw_people(2).save(tmp_path / "crops")
    with pytest.raises(InputError, match=r"image_ids has the shape \(2,\) for 3 crops\. Make the crops again"):
        People.load(tmp_path / "crops")
