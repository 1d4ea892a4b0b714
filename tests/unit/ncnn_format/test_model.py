"""The ncnn format against ncnn itself, and what happens to damaged files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ncnn_fixtures import Builder, small_network

from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer, NcnnModel, format_param, parse_param, read_param, weight_slots

WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="=,"), min_size=1, max_size=30)
NUMBERS = st.integers(-(2**31), 2**31 - 1).map(str) | st.floats(-(2.0**90), 2.0**90, width=32).map(
    lambda value: f"{value:e}"
)
ARRAYS = st.lists(NUMBERS).map(lambda values: ",".join([str(len(values)), *values]))
PARAMS = st.dictionaries(st.integers(0, 31), NUMBERS) | st.dictionaries(st.integers(-23331, -23300), ARRAYS, min_size=1)


@st.composite
def graphs(draw: st.DrawFn) -> list[Layer]:
    """Draw layers whose blobs are made once, and read at most once, later."""
    count = draw(st.integers(0, 6))
    names = draw(st.lists(WORDS, min_size=count, max_size=count, unique=True))
    unread: list[str] = []
    layers = []
    for index, name in enumerate(names):
        bottoms = draw(st.lists(st.sampled_from(unread), unique=True, max_size=3)) if unread else []
        tops = [f"blob{index}_{top}" for top in range(draw(st.integers(0, 3)))]
        unread = [blob for blob in unread if blob not in bottoms] + tops
        layers.append(Layer(draw(WORDS), name, tuple(bottoms), tuple(tops), draw(PARAMS)))
    return layers


@given(graphs())
def test_what_is_written_is_read_again_byte_for_byte(layers: list[Layer]) -> None:
    text = format_param(layers)
    assert parse_param(text) == layers
    assert format_param(parse_param(text)) == text


def test_a_line_is_read_as_ncnn_means_it() -> None:
    layers = parse_param(
        "7767517\n3 4\n"
        "Input                    in0                      0 1 in0\n"
        "Split                    split                    1 2 in0 left right\n"
        "Convolution              clip                     1 1 left out0 0=16 1=3 -23310=2,0.0,6.0 18=2.5\n"
    )
    clip = layers[2]
    assert (clip.bottoms, clip.tops) == (("left",), ("out0",))
    assert (clip.integer(0), clip.integer(1), clip.integer(11, 3), clip.real(18)) == (16, 3, 3, 2.5)
    assert clip.reals(10) == [0.0, 6.0]
    assert clip.reals(4) == []


WEIGHTED: dict[str, dict[int, int]] = {
    "Convolution": {0: 4, 1: 3, 5: 1, 6: 108},
    "Convolution1D": {0: 4, 1: 3, 5: 1, 6: 36},
    "ConvolutionDepthWise": {0: 4, 1: 3, 6: 36, 7: 4},
    "Deconvolution": {0: 4, 1: 2, 5: 1, 6: 48},
    "DeconvolutionDepthWise": {0: 4, 1: 2, 5: 1, 6: 16, 7: 4},
    "DeformableConv2D": {0: 4, 1: 3, 5: 1, 6: 108},
    "InnerProduct": {0: 5, 1: 1, 2: 35},
    "Embed": {0: 5, 1: 7, 2: 1, 3: 35},
    "BatchNorm": {0: 5},
    "Bias": {0: 5},
    "Scale": {0: 5, 1: 1},
    "PReLU": {0: 5},
    "InstanceNorm": {0: 5},
    "LayerNorm": {0: 5},
    "GroupNorm": {0: 1, 1: 5},
    "RMSNorm": {0: 5},
    "Normalize": {1: 1, 3: 5},
    "MemoryData": {0: 5, 1: 3},
    "Gemm": {4: 0, 5: 1, 6: 1, 7: 2, 8: 5, 9: 3, 10: 4},
    "MultiHeadAttention": {0: 6, 1: 2, 2: 24, 3: 5, 4: 3},
}


@pytest.mark.parametrize("type_", WEIGHTED)
def test_the_length_of_every_layers_weights_is_what_ncnn_reads(type_: str, tmp_path: Path) -> None:
    params = {key: str(value) for key, value in WEIGHTED[type_].items()}
    bottoms = () if type_ == "MemoryData" else ("in0",)
    layer = Layer(type_, "it", bottoms, ("out0",), params)
    slots = weight_slots(layer)
    assert slots
    builder = Builder().add("Input", "in0", "", "in0") if bottoms else Builder()
    weights = {slot.name: np.ones(slot.size, np.float32) for slot in slots}
    param, bin_ = builder.add(type_, "it", " ".join(bottoms), "out0", dict(params), **weights).write(tmp_path)

    def load() -> int:
        net = ncnn.Net()
        assert net.load_param(str(param)) == 0
        return int(net.load_model(str(bin_)))

    assert load() == 0
    content = bin_.read_bytes()
    bin_.write_bytes(content[:-4])
    assert load() != 0
    with pytest.raises(InputError, match="cut off in the weights of layer it"):
        NcnnModel.read(param, bin_)
    bin_.write_bytes(content + bytes(4))
    with pytest.raises(InputError, match="4 bytes are left after layer it"):
        NcnnModel.read(param, bin_)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_model_is_written_byte_for_byte_as_it_was_read(dtype: Any, tmp_path: Path) -> None:
    builder = small_network()
    # 135 weights: float16 and INT8 arrays of odd size are padded to 4 bytes.
    weight = np.arange(135).reshape(5, 3, 3, 3).astype(dtype)
    builder.convolution("odd", "out1", "out2", weight)
    param, bin_ = builder.write(tmp_path)
    model = NcnnModel.read(param, bin_)
    np.testing.assert_array_equal(model.named("odd")[1]["weight"], weight.ravel())
    assert model.named("odd")[1]["weight"].dtype == dtype
    model.write(tmp_path / "again.param", tmp_path / "again.bin")
    assert (tmp_path / "again.param").read_bytes() == param.read_bytes()
    assert (tmp_path / "again.bin").read_bytes() == bin_.read_bytes()


def test_ncnn_reads_the_weights_that_were_written(tmp_path: Path) -> None:
    value = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    param, bin_ = Builder().add("MemoryData", "it", "", "out0", {0: 4, 1: 3, 2: 2}, data=value.ravel()).write(tmp_path)
    net = ncnn.Net()
    assert net.load_param(str(param)) == net.load_model(str(bin_)) == 0
    status, mat = net.create_extractor().extract("out0")
    assert status == 0
    np.testing.assert_array_equal(np.array(mat), value)


def replace(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replace("7767517", "1"), "first line is not 7767517"),
        (lambda text: "", "no such file|is empty"),
        (replace("14 17", "14"), "second line is not the counts"),
        (replace("14 17", "15 17"), "announces 15 layers and 17 blobs, but there are 14 and 17"),
        (lambda text: text[: text.rindex("InnerProduct")], "announces 14 layers .* 13 and 16"),
        (lambda text: text[:-40], "cannot read the layer line 'InnerProduct"),
        (replace("1 1 a b", "1 x a b"), "cannot read the layer line 'Convolution +conv_b"),
        (replace("1 1 a b 0=8", "1 1 a b 0=8 0=9"), "cannot read the layer line 'Convolution +conv_b"),
        (replace("1 1 a b 0=8", "1 1 a b 0="), "cannot read the layer line 'Convolution +conv_b"),
        (replace("conv_b ", "conv_a "), "two layers are called conv_a"),
        (replace("1 1 a b", "1 1 z b"), "layer conv_b reads blob z, which no layer before it makes"),
        (replace("1 1 b1 d", "1 1 b0 d"), "layer conv_d reads blob b0, which another layer reads too"),
        (replace("1 1 b1 d", "1 1 b1 c"), "layer conv_d makes blob c, which another layer makes too"),
    ],
)
def test_a_damaged_param_is_refused(damage: Callable[[str], str], message: str, tmp_path: Path) -> None:
    param, _ = small_network().write(tmp_path)
    param.write_text(damage(param.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        read_param(param)
    assert str(param) in str(caught.value)


def test_a_bin_given_as_param_is_refused(tmp_path: Path) -> None:
    _, bin_ = small_network().write(tmp_path)
    with pytest.raises(InputError, match=r"model\.bin: not"):
        read_param(bin_)


def test_a_parameter_that_is_no_number_is_refused() -> None:
    layer = Layer("Convolution", "it", (), (), {0: "many", -23310: "3,1.0,2.0"})
    with pytest.raises(InputError, match="layer it: 'many'"):
        layer.integer(0)
    with pytest.raises(InputError, match="layer it: array 10 announces 3 values but has 2"):
        layer.reals(10)


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 500, -1])
def test_a_bin_cut_off_anywhere_is_refused(kept: int, tmp_path: Path) -> None:
    param, bin_ = small_network().write(tmp_path)
    bin_.write_bytes(bin_.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"model\.bin: the file is cut off in the weights of layer (conv_a|conv_b|fc)"):
        NcnnModel.read(param, bin_)


def test_a_missing_bin_is_refused(tmp_path: Path) -> None:
    param, bin_ = small_network().write(tmp_path)
    bin_.unlink()
    with pytest.raises(InputError, match=r"model\.bin: no such file"):
        NcnnModel.read(param, bin_)


def test_a_bin_of_other_weights_is_refused(tmp_path: Path) -> None:
    param, bin_ = small_network().write(tmp_path)
    bin_.write_bytes(b"\x12\x34\x56\x78" + bin_.read_bytes()[4:])
    with pytest.raises(InputError, match=r"model\.bin: layer conv_a has weights of an unknown kind \(0x78563412\)"):
        NcnnModel.read(param, bin_)


def test_an_int8_mark_on_float_weights_is_refused(tmp_path: Path) -> None:
    param, bin_ = small_network().write(tmp_path)
    param.write_text(param.read_text().replace("1 1 in0 a ", "1 1 in0 a 8=2 "))
    with pytest.raises(InputError, match=r"weights of layer conv_a are float32, but .* is marked as INT8"):
        NcnnModel.read(param, bin_)


def test_layers_with_unknown_weights_are_refused_by_name(tmp_path: Path) -> None:
    builder = Builder().add("Input", "in0", "", "in0").add("LSTM", "memory", "in0", "out0")
    param, bin_ = tmp_path / "model.param", tmp_path / "model.bin"
    param.write_text(format_param(builder.layers))
    bin_.write_bytes(bytes(400))
    with pytest.raises(InputError, match=r"model\.param: layer memory: weights of LSTM layers are not supported"):
        NcnnModel.read(param, bin_)
