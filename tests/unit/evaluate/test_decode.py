from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpose.registry import KEYPOINT_CODECS
from mmpose.structures.bbox import get_udp_warp_matrix, get_warp_matrix
from tests.unit.evaluation_fixtures import (
    CODECS,
    HEATMAP_SIZE,
    INPUT_SIZE,
    MEAN,
    STD,
    Dataset,
    draw_dataset,
    make_model,
    mmpose_dataset,
    mmpose_predictions,
)

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.data.crops import Cropper
from posequant.evaluate.decode import Decoder, average_with_mirrored, mirror, refined_maxima
from posequant.networks.pytorch import PytorchNetwork


def spec_of(codec_name: str, **changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "name": "drawn",
        "input_size": INPUT_SIZE,
        "mean": MEAN,
        "std": STD,
        "to_rgb": True,
        "padding": 1.25,
        "use_udp": codec_name.startswith("udp"),
        "codec": CODECS[codec_name],
        "flip_mode": "heatmap",
        "shift_heatmap": True,
        "input_name": "input",
        "output_names": ("output",),
    }
    return ModelSpec(**values | changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize("codec", CODECS)
def test_decodes_as_the_network_predicts(
    dataset: Dataset, tmp_path_factory: pytest.TempPathFactory, codec: str
) -> None:
    model = make_model(tmp_path_factory.mktemp("model"), codec)
    samples = list(mmpose_dataset(dataset, model))
    cropper, decoder = Cropper(model.spec), Decoder(model.spec)
    network = PytorchNetwork(model.config, model.checkpoint, model.spec.input_shape)
    crops = np.stack([cropper.normalise(sample["inputs"].numpy().transpose(1, 2, 0)) for sample in samples])
    metainfo = [sample["data_samples"].metainfo for sample in samples]
    centers = np.stack([entry["input_center"] for entry in metainfo])
    scales = np.stack([entry["input_scale"] for entry in metainfo])
    for flip_test in (False, True):
        outputs = network.forward(crops)
        if flip_test:
            outputs = average_with_mirrored(outputs, network.forward(mirror(crops)), model.spec)
        keypoints, scores = decoder.decode(outputs, centers, scales)
        reference = [sample.pred_instances for sample in mmpose_predictions(model, samples, flip_test)]
        expected = np.concatenate([entry.keypoints for entry in reference])
        np.testing.assert_array_equal(keypoints, expected.astype(np.float32))
        np.testing.assert_array_equal(scores, np.concatenate([entry.keypoint_scores for entry in reference]))
        assert keypoints.dtype == scores.dtype == np.float32
        assert np.ptp(scores) > 1e-3


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    levels=st.integers(1, 6),  # few: maxima tie, and lie on borders
    seed=st.integers(0, 2**32 - 1),
)
def test_refined_maxima_are_those_of_mmposes_codec(size: tuple[int, int], levels: int, seed: int) -> None:
    heatmaps = np.random.default_rng(seed).integers(-1, levels, (3, 17, *size)).astype(np.float32)
    width, height = size[::-1]
    codec = {"type": "MSRAHeatmap", "input_size": (width, height), "heatmap_size": (width, height), "sigma": 2}
    reference = KEYPOINT_CODECS.build(codec)
    positions, maxima = refined_maxima(heatmaps)
    for crop, heatmap in enumerate(heatmaps):
        expected, scores = reference.decode(heatmap)
        np.testing.assert_array_equal(positions[crop], expected[0])
        np.testing.assert_array_equal(maxima[crop], scores[0])


@given(
    codec=st.sampled_from(["msra", "udp", "simcc"]),
    corner=st.tuples(*[st.floats(-100, 500)] * 2),
    extent=st.tuples(*[st.floats(10, 400)] * 2),
    places=st.lists(st.tuples(*[st.floats(0.05, 0.95)] * 2), min_size=17, max_size=17),
)
@settings(deadline=None, max_examples=60)
def test_keypoints_come_back_to_their_place_in_the_image(
    codec: str, corner: tuple[float, float], extent: tuple[float, float], places: list[tuple[float, float]]
) -> None:
    spec = spec_of(codec)
    bbox = np.array([*corner, *np.add(corner, extent)], np.float32)
    _, center, scale = Cropper(spec).cut(np.zeros((10, 10, 3), np.uint8), bbox)
    in_image = np.array(corner) + np.array(places) * extent
    matrix = (get_udp_warp_matrix if spec.use_udp else get_warp_matrix)(center, scale, 0.0, output_size=INPUT_SIZE)
    in_crop = np.hstack([in_image, np.ones((17, 1))]) @ matrix.T
    codec_of_mmpose = KEYPOINT_CODECS.build(spec.codec)
    encoded = codec_of_mmpose.encode(in_crop[np.newaxis].astype(np.float32), np.ones((1, 17), np.float32))
    if codec == "simcc":
        outputs = [encoded["keypoint_x_labels"], encoded["keypoint_y_labels"]]
        bin_size = 0.5
    else:
        outputs = [encoded["heatmaps"][np.newaxis]]
        bin_size = INPUT_SIZE[0] / HEATMAP_SIZE[0]
    keypoints, _ = Decoder(spec).decode(outputs, center[np.newaxis], scale[np.newaxis])
    # Half a bin of the target, and a quarter that MSRA moves towards the second maximum.
    tolerance = 0.8 * bin_size * scale / INPUT_SIZE
    assert (np.abs(keypoints[0] - in_image) <= tolerance + 1e-2).all()


def test_other_output_than_the_codec_reads_is_refused() -> None:
    places = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    for shape in [(1, 17, 24, 12), (1, 18, 24, 16), (1, 17, 384)]:
        with pytest.raises(InputError, match=r"model drawn: the network gives .* MSRAHeatmap reads .*17, 24, 16"):
            Decoder(spec_of("msra")).decode([np.zeros(shape, np.float32)], *places)
    with pytest.raises(InputError, match=r"SimCCLabel reads .*17, 128.*17, 192"):
        Decoder(spec_of("simcc")).decode([np.zeros((1, 17, 128), np.float32)], *places)


def test_codec_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"input_size \(64, 96\) is not the model's \(64, 64\)"):
        Decoder(spec_of("msra", input_size=(64, 64)))
    for settings_ in ({"type": "NoSuch", "input_size": INPUT_SIZE}, {"type": "MSRAHeatmap", "input_size": INPUT_SIZE}):
        with pytest.raises(InputError, match="mmpose cannot build the codec"):
            Decoder(spec_of("msra", codec=settings_))


def test_codec_read_from_json_decodes_alike() -> None:
    heatmaps = np.random.default_rng(0).random((2, 17, 24, 16), np.float32)
    places = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in CODECS["udp"].items()}
    expected, _ = Decoder(spec_of("udp")).decode([heatmaps], *places)
    found, _ = Decoder(spec_of("udp", codec=listed)).decode([heatmaps], *places)
    np.testing.assert_array_equal(found, expected)


def test_mirrored_crop_is_that_of_a_flip_test() -> None:
    crops = np.random.default_rng(0).random((2, 3, 5, 7), np.float32)
    np.testing.assert_array_equal(mirror(crops), torch.from_numpy(crops).flip(-1).numpy())
