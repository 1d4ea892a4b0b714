from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.evaluation_fixtures import Dataset, Model, draw_dataset, make_model, mmpose_dataset

from posequant.base.openmmlab import build_model, load_config, make_importable
from posequant.data.crops import Cropper, crops_of_images
from posequant.data.dataset import ground_truth_instances, load_annotations, read_image


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module", params=["msra", "udp"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("model"), request.param)


def test_crops_are_those_of_the_test_pipeline(dataset: Dataset, model: Model) -> None:
    instances = ground_truth_instances(load_annotations(dataset.annotations))
    reference: Any = mmpose_dataset(dataset, model)
    cropper = Cropper(model.spec)
    assert len(reference) == len(instances)
    for sample, index, bbox in zip(reference, instances.image_indices, instances.bboxes, strict=True):
        crop, center, scale = cropper.cut(read_image(dataset.images, instances.images[index]), bbox)
        np.testing.assert_array_equal(crop.transpose(2, 0, 1), sample["inputs"].numpy())
        metainfo = sample["data_samples"].metainfo
        np.testing.assert_array_equal(center, metainfo["input_center"])
        np.testing.assert_array_equal(scale, metainfo["input_scale"])
        assert center.dtype == scale.dtype == np.float32


@given(
    udp=st.booleans(),
    size=st.tuples(*[st.integers(8, 80)] * 2),
    padding=st.sampled_from([1.0, 1.25, 1.5]),
    corner=st.tuples(*[st.floats(-60, 150, width=32)] * 2),
    extent=st.tuples(*[st.floats(1, 300, width=32)] * 2),
)
@settings(deadline=None)
def test_crop_of_any_box_is_that_of_mmposes_transforms(
    udp: bool, size: tuple[int, int], padding: float, corner: tuple[float, float], extent: tuple[float, float]
) -> None:
    make_importable()
    from mmpose.datasets.transforms import GetBBoxCenterScale, TopdownAffine

    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    bbox = np.array([*corner, *np.add(corner, extent)], np.float32)
    framed = GetBBoxCenterScale(padding=padding).transform({"img": image, "bbox": bbox[np.newaxis]})
    expected = TopdownAffine(input_size=size, use_udp=udp).transform(framed)
    spec: Any = SimpleNamespace(padding=padding, input_size=size, use_udp=udp, to_rgb=True, mean=[0] * 3, std=[1] * 3)
    crop, center, scale = Cropper(spec).cut(image, bbox)
    np.testing.assert_array_equal(center, expected["bbox_center"][0])
    np.testing.assert_array_equal(scale, expected["bbox_scale"][0])
    np.testing.assert_array_equal(crop, expected["img"])
    assert center.dtype == scale.dtype == np.float32


def test_crops_are_normalised_as_by_the_data_preprocessor(dataset: Dataset, model: Model) -> None:
    network: Any = build_model(load_config(model.config), model.checkpoint)
    samples = [sample for sample, _ in zip(mmpose_dataset(dataset, model), range(3), strict=False)]
    batch = network.data_preprocessor(
        {
            "inputs": [sample["inputs"] for sample in samples],
            "data_samples": [sample["data_samples"] for sample in samples],
        }
    )
    cropper = Cropper(model.spec)
    for sample, expected in zip(samples, batch["inputs"].numpy(), strict=True):
        (found,) = cropper.normalise(sample["inputs"].numpy().transpose(1, 2, 0)[np.newaxis])
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous


def test_network_that_takes_bgr_gets_bgr(model: Model) -> None:
    crops = np.zeros((1, 96, 64, 3), np.uint8)
    crops[..., 0] = 200  # blue
    as_rgb = Cropper(model.spec).normalise(crops)
    cropper = Cropper(type(model.spec)(**vars(model.spec) | {"to_rgb": False}))
    as_bgr = cropper.normalise(crops)
    np.testing.assert_allclose(
        as_rgb[0, :, 0, 0], [-123.675 / 58.395, -116.28 / 57.12, (200 - 103.53) / 57.375], rtol=1e-6
    )
    np.testing.assert_allclose(
        as_bgr[0, :, 0, 0], [(200 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375], rtol=1e-6
    )


def test_crops_of_images_are_in_the_order_that_is_asked_for(dataset: Dataset, model: Model) -> None:
    instances = ground_truth_instances(load_annotations(dataset.annotations))
    cropper = Cropper(model.spec)
    people = np.random.default_rng(0).permutation(len(instances))
    found = crops_of_images(cropper, instances, dataset.images)(people)
    for crop, person in zip(found, people, strict=True):
        image = instances.images[instances.image_indices[person]]
        expected, center, extent = cropper.cut(read_image(dataset.images, image), instances.bboxes[person])
        np.testing.assert_array_equal(crop, expected)
        np.testing.assert_array_equal([values[person] for values in cropper.frame(instances.bboxes)], [center, extent])


def test_beyond_the_border_is_black(model: Model) -> None:
    image = np.full((100, 100, 3), 255, np.uint8)
    crop, _, _ = Cropper(model.spec).cut(image, np.array([-50, 20, 50, 80], np.float32))
    assert cv2.countNonZero(crop[:, :30, 0]) == 0
    assert crop[48, 40:].min() == 255
