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
from posequant.evaluate.decode import Decoder, average_with_mirrored, mirror
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
    crops = cropper.normalise(np.stack([sample["inputs"].numpy().transpose(1, 2, 0) for sample in samples]))
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
    codec=st.sampled_from([name for name in CODECS if name != "simcc"]),
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    levels=st.integers(1, 6),  # few: maxima tie, and lie on borders
    rough=st.just(0.0) | st.floats(1e-6, 1),  # less, and a maximum cannot be divided by
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=300)
@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero")
def test_heatmaps_are_read_as_by_mmposes_codec(
    codec: str, size: tuple[int, int], levels: int, rough: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    planes = 51 if codec == "udp-combined" else 17
    heatmaps = generator.integers(-1, levels, (3, planes, *size)) + rough * generator.random((3, planes, *size))
    settings_of_codec = CODECS[codec] | {"heatmap_size": size[::-1]}
    assert_reads_as_mmpose(codec, settings_of_codec, [heatmaps.astype(np.float32)])


@given(ratio=st.sampled_from([1.0, 2.0, 3.0]), levels=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_distributions_are_read_as_by_mmposes_codec(ratio: float, levels: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    outputs = [generator.integers(-1, levels, (3, 17, round(side * ratio))).astype(np.float32) for side in INPUT_SIZE]
    assert_reads_as_mmpose("simcc", CODECS["simcc"] | {"simcc_split_ratio": ratio}, outputs)


def assert_reads_as_mmpose(codec: str, settings_of_codec: dict[str, Any], outputs: list[Any]) -> None:
    scales = np.array([INPUT_SIZE, (40.5, 71.25), (200, 300)], np.float32)
    centers = np.array([(32, 48), (-3.5, 7), (100, 120)], np.float32)
    reference = KEYPOINT_CODECS.build(settings_of_codec)
    spec = spec_of(codec, codec=settings_of_codec)
    keypoints, scores = Decoder(spec).decode([output.copy() for output in outputs], centers, scales)
    for row, (center, scale) in enumerate(zip(centers, scales, strict=True)):
        try:
            expected, confidence = reference.decode(*(output[row].copy() for output in outputs))
        except np.linalg.LinAlgError:
            continue
        in_image = (expected[0] / INPUT_SIZE * scale + center - 0.5 * scale).astype(np.float32)
        # Where a heatmap is 0 everywhere, mmpose gives NaN.
        known = np.isfinite(in_image).all(axis=1) & np.isfinite(confidence[0])
        np.testing.assert_array_equal(keypoints[row, known], in_image[known])
        np.testing.assert_array_equal(scores[row, known], confidence[0, known].astype(np.float32))
    assert np.isfinite(keypoints).all()
    assert np.isfinite(scores).all()


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
    with pytest.raises(
        InputError, match=r"model drawn: the codec's input_size \[64, 96\] is not the crop's \[64, 64\]"
    ):
        Decoder(spec_of("msra", input_size=(64, 64)))
    for codec, message in (
        ({"type": "NoSuch"}, "the codec NoSuch is not supported; choose from MSRAHeatmap, UDPHeatmap,"),
        ({"type": "MSRAHeatmap"}, "does not take these settings: .*heatmap_size"),
        (CODECS["msra"] | {"blur": 3}, "does not take these settings: .*'blur'"),
        (CODECS["udp"] | {"heatmap_type": "other"}, "heatmap_type is 'other', not gaussian or combined"),
        (CODECS["megvii"] | {"kernel_size": 4}, "the size of a blur must be odd, not 4"),
        (CODECS["simcc"] | {"use_dark": True}, "use_dark of SimCC fails in mmpose"),
    ):
        with pytest.raises(InputError, match=f"model drawn: .*{message}"):
            Decoder(spec_of("msra", codec=codec | {"input_size": INPUT_SIZE}))


def test_names_of_mmposes_scope_are_taken() -> None:
    Decoder(spec_of("msra", codec=CODECS["msra"] | {"type": "mmpose.MSRAHeatmap"}))


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
