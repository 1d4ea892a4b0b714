"""The description of a network, from configs that mmpose ships and from ONNX files."""

from pathlib import Path
from typing import Any

import pytest
from onnx import helper
from tests.unit.export_fixtures import CONFIG, HEATMAP, SIMCC, convolution_weights, save_onnx_by_hand, write_config

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.export.describe import describe_mmpose, describe_ncnn, describe_onnx
from posequant.workflow.settings.export import Codec, CropAndCodec

CODEC: dict[str, Any] = {"type": "MSRAHeatmap", "input_size": [6, 8], "heatmap_size": [6, 8], "sigma": 2}
SETTINGS = CropAndCodec(
    input_size=(6, 8), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), codec=Codec(**CODEC)
)
CONVOLUTION = helper.make_node("Conv", ["x", "weight"], ["y"])


def test_hourglass52_as_shipped(tmp_path: Path) -> None:
    spec = describe_mmpose("hourglass52", "td-hm_hourglass52_8xb32-210e_coco-256x256")
    assert spec == ModelSpec(
        name="hourglass52",
        input_size=(256, 256),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        to_rgb=True,
        padding=1.25,
        use_udp=False,
        codec={"type": "MSRAHeatmap", "input_size": [256, 256], "heatmap_size": [64, 64], "sigma": 2},
        flip_mode="heatmap",
        shift_heatmap=True,
        input_name="input",
        output_names=("output",),
    )
    spec.save(tmp_path / "model.json")
    assert ModelSpec.load(tmp_path / "model.json") == spec


def test_udp_as_shipped() -> None:
    spec = describe_mmpose("udp", "td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192")
    assert spec.use_udp
    assert spec.codec["type"] == "UDPHeatmap"
    assert spec.input_shape == (3, 256, 192)
    assert not spec.shift_heatmap


def test_what_the_test_pipeline_says(tmp_path: Path) -> None:
    spec = describe_mmpose("tiny", write_config(tmp_path))
    assert (spec.padding, spec.use_udp, spec.input_size) == (1.3, True, (64, 96))


def test_simcc_has_two_outputs(tmp_path: Path) -> None:
    assert describe_mmpose("tiny", write_config(tmp_path, SIMCC)).output_names == ("simcc_x", "simcc_y")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dict(type='LoadImage'),", "dict(type='LoadImage'), dict(type='RandomFlip'),", "transform 'RandomFlip'"),
        ("dict(type='LoadImage')", "dict(type='LoadImage', to_float32=True)", "unsupported argument 'to_float32'"),
        ("dict(type='GetBBoxCenterScale', padding=1.3),", "", "lacks the transform 'GetBBoxCenterScale'"),
        ("bgr_to_rgb=True", "bgr_to_rgb=True, pad_size_divisor=33", "pad_size_divisor 33"),
        (
            "mean=[123.675, 116.28, 103.53]",
            "mean=[120.0]",
            "is not valid:\n  - model\\.data_preprocessor\\.mean: entry 2 is missing",
        ),
        ("type='MSRAHeatmap'", "type='NoSuchCodec'", "codec NoSuchCodec is not supported"),
        (", decoder=codec", "", "names no codec"),
        ("input_size=codec['input_size']", "input_size=(96, 144)", "codec's input_size"),
        ("input_size=codec['input_size']", "input_size=96", r"is not valid:\n  - TopdownAffine\.input_size: 96 is not"),
        ("padding=1.3", "padding='wide'", "is not valid:\n  - GetBBoxCenterScale.padding"),
        (
            "dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True)",
            "'abc'",
            "is not valid:\n  - model.test_cfg: .* is not a mapping",
        ),
        ("dict(type='LoadImage')", "'LoadImage'", "is not valid:\n  - test_dataloader.dataset.pipeline.0"),
        ("out_channels=17", "out_channels=16", "model.head.out_channels is 16, where COCO's 17 keypoints make 17"),
    ],
)
def test_config_that_a_crop_cannot_follow(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "config.py"
    text = CONFIG.format(**HEATMAP)
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=rf"config\.py.*{message}"):
        describe_mmpose("tiny", path)


def test_onnx_file_with_defaults(tmp_path: Path) -> None:
    path = save_onnx_by_hand(tmp_path / "m.onnx", [CONVOLUTION], convolution_weights(), weights_as_inputs=True)
    spec = describe_onnx("mine", path, SETTINGS)
    assert (spec.input_name, spec.output_names) == ("x", ("y",))
    assert (spec.to_rgb, spec.padding, spec.use_udp, spec.flip_mode) == (True, 1.25, False, "heatmap")
    assert spec.codec == CODEC


def test_open_batch_fits(tmp_path: Path) -> None:
    path = save_onnx_by_hand(tmp_path / "m.onnx", [CONVOLUTION], convolution_weights(), ("n", 3, 8, 6), ("n", 17, 8, 6))
    assert describe_onnx("mine", path, SETTINGS).input_size == (6, 8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input_size": [8, 6], "codec": CODEC | {"input_size": [8, 6]}}, r"input 'x' is 1x3x8x6.*1x3x6x8"),
        ({"codec": CODEC | {"heatmap_size": [3, 4]}}, r"output 'y' is 1x17x8x6.*1x17x4x3"),
        ({"codec": CODEC | {"input_size": [12, 16]}}, "codec's input_size"),
        ({"codec": CODEC | {"input_size": 12}}, "settings of the codec MSRAHeatmap make no sense"),
        ({"codec": {"type": "SimCCLabel", "input_size": [6, 8]}}, "has 1 outputs .* decodes 2"),
    ],
)
def test_onnx_file_that_is_not_what_the_settings_say(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = save_onnx_by_hand(tmp_path / "m.onnx", [CONVOLUTION], convolution_weights())
    with pytest.raises(InputError, match=message):
        describe_onnx("mine", path, CropAndCodec.model_validate(SETTINGS.filled() | changed))


def test_sixteen_keypoints_are_refused(tmp_path: Path) -> None:
    path = save_onnx_by_hand(tmp_path / "m.onnx", [CONVOLUTION], convolution_weights(16), output_shape=(1, 16, 8, 6))
    with pytest.raises(InputError, match=r"m\.onnx: output 'y' has 16 channels, where COCO's 17 keypoints make 17"):
        describe_onnx("mine", path, SETTINGS)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.onnx: no such file"):
        describe_onnx("mine", tmp_path / "m.onnx", SETTINGS)
    (tmp_path / "m.onnx").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"m\.onnx: not a readable ONNX"):
        describe_onnx("mine", tmp_path / "m.onnx", SETTINGS)


def test_ncnn_network_has_the_names_that_it_gets() -> None:
    spec = describe_ncnn("mine", SETTINGS)
    assert (spec.input_name, spec.output_names, spec.input_shape) == ("in0", ("out0",), (3, 8, 6))
    simcc: dict[str, Any] = {"type": "SimCCLabel", "input_size": [6, 8], "sigma": 2.0}
    settings = SETTINGS.model_copy(update={"codec": Codec(**simcc)})
    assert describe_ncnn("mine", settings).output_names == ("out0", "out1")
