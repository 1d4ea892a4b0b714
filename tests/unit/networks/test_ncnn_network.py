"""Networks in ncnn: what they compute, and what is refused in place of a crash."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import (
    INPUT_SHAPE,
    Builder,
    draw_crops,
    small_network,
    small_network_in_numpy,
    sqnr,
    write_int8,
)

from posequant.base.errors import InputError
from posequant.networks.ncnn import NcnnNetwork, to_mat

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return small_network().write(tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="module")
def int8_model(float_model: Pair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return write_int8(float_model, tmp_path_factory.mktemp("int8"))


def test_fp32_computes_what_numpy_does(float_model: Pair) -> None:
    crops = draw_crops(3)
    outputs = NcnnNetwork(*float_model, "fp32", INPUT_SHAPE).forward(crops)
    assert [output.shape for output in outputs] == [(3, 5, 16, 12), (3, 6)]
    for index, crop in enumerate(crops):
        expected = small_network_in_numpy(small_network().model(), crop)
        for name, output in zip(("out0", "out1"), outputs, strict=True):
            np.testing.assert_allclose(output[index], expected[name], rtol=1e-4, atol=1e-5)
            assert output.dtype == np.float32


def test_activations_are_what_flows_through_the_blobs(float_model: Pair) -> None:
    crop = draw_crops(1)[0]
    expected = small_network_in_numpy(small_network().model(), crop)
    names = ["in0", "a", "b0", "b1", "e0", "e1", "f0", "f1", "h", "out0", "out1"]
    for name, values in zip(
        names, NcnnNetwork(*float_model, "fp32", INPUT_SHAPE).activations(crop, names), strict=True
    ):
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_precisions_differ_as_much_as_their_bits(float_model: Pair, int8_model: Pair) -> None:
    crops = draw_crops(4, seed=2)
    reference = NcnnNetwork(*float_model, "fp32", INPUT_SHAPE).forward(crops)
    for pair, precision, least, most in (
        (float_model, "fp16", 50, np.inf),  # bit-equal on x86, where the .bin alone decides
        (float_model, "bf16", 25, 60),
        (int8_model, "int8", 20, 45),
    ):
        outputs = NcnnNetwork(*pair, precision, INPUT_SHAPE).forward(crops)
        for expected, output in zip(reference, outputs, strict=True):
            assert least < sqnr(expected, output) <= most, precision


def test_bf16_is_refused_where_ncnn_computes_garbage(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 1, 3, 3)).astype(np.float32)
    pair = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv", "in0", "a", np.ones((6, 3, 1, 1), np.float32))
        .convolution("depthwise", "a", "b", weight, group=6)
        .convolution("grouped", "b", "out0", np.repeat(weight, 3, axis=1), group=2)
    ).write(tmp_path)
    NcnnNetwork(*pair, "fp32", INPUT_SHAPE).forward(draw_crops(1))
    with pytest.raises(InputError, match="grouped convolutions such as grouped wrongly in bf16"):
        NcnnNetwork(*pair, "bf16", INPUT_SHAPE)


def test_int8_winograd_changes_nothing_where_weights_keep_to_six_bits(int8_model: Pair) -> None:
    crops = draw_crops(4, seed=3)
    with_winograd = NcnnNetwork(*int8_model, "int8", INPUT_SHAPE, int8_winograd=True).forward(crops)
    without = NcnnNetwork(*int8_model, "int8", INPUT_SHAPE).forward(crops)
    for left, right in zip(with_winograd, without, strict=True):
        np.testing.assert_array_equal(left, right)


def test_threads_share_one_network(int8_model: Pair) -> None:
    crops = draw_crops(24, seed=4)
    network = NcnnNetwork(*int8_model, "int8", INPUT_SHAPE)
    expected = network.forward(crops)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(network.forward, np.split(crops, 12)))
    for index, output in enumerate(expected):
        np.testing.assert_array_equal(np.concatenate([part[index] for part in parts]), output)


def test_the_layout_of_the_given_array_does_not_matter(float_model: Pair) -> None:
    network = NcnnNetwork(*float_model, "fp32", INPUT_SHAPE)
    crops = draw_crops(2)
    expected = network.forward(crops)[0]
    np.testing.assert_array_equal(network.forward(np.asfortranarray(crops))[0], expected)
    np.testing.assert_array_equal(network.forward(np.concatenate((crops, crops), axis=3)[..., :12])[0], expected)


def test_blobs_given_in_another_layout_are_not_lost(float_model: Pair) -> None:
    """A contiguous copy that nobody holds is overwritten before ncnn reads it."""
    network = NcnnNetwork(*float_model, "fp32", INPUT_SHAPE)
    (crop,) = draw_crops(1)
    expected = network.forward(crop[np.newaxis])
    scattered = crop.transpose(2, 1, 0).copy().transpose(2, 1, 0)
    assert not scattered.flags.c_contiguous
    for _ in range(50):
        for given in (network.resume({"in0": scattered}), network.forward_changed(crop, {"in0": lambda _: scattered})):
            for found, wanted in zip(given, expected, strict=True):
                np.testing.assert_array_equal(found, wanted[0])
    assert np.array_equal(np.array(to_mat(scattered)), scattered)


def test_no_crops_give_no_rows(float_model: Pair) -> None:
    outputs = NcnnNetwork(*float_model, "fp32", INPUT_SHAPE).forward(draw_crops(0))
    assert [output.shape for output in outputs] == [(0, 5, 16, 12), (0, 6)]


@pytest.mark.parametrize(
    "crops",
    [
        draw_crops(1).astype(np.float64),
        draw_crops(1).astype(np.uint8),
        draw_crops(1)[0],
        draw_crops(1).transpose(0, 2, 3, 1),
        draw_crops(1)[:, :2],
        draw_crops(1)[:, :, :8],
    ],
)
def test_crops_that_would_crash_are_refused(crops: Any, float_model: Pair) -> None:
    with pytest.raises(InputError, match=r"crops"):
        NcnnNetwork(*float_model, "fp32", INPUT_SHAPE).forward(crops)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_crops_that_would_deceive_are_refused(value: float, float_model: Pair) -> None:
    network = NcnnNetwork(*float_model, "fp32", INPUT_SHAPE)
    crops = np.full((1, *INPUT_SHAPE), value, np.float32)
    with pytest.raises(InputError, match="crop holds NaN or infinity"):
        network.forward_on_threads(crops, 1)
    with pytest.raises(InputError, match="crop holds NaN or infinity"):
        list(network.activations(crops[0], ["in0"]))
    with pytest.raises(InputError, match="crop holds NaN or infinity"):
        network.forward_changed(crops[0], {})


def test_values_that_overflow_are_refused(float_model: Pair) -> None:
    with pytest.raises(InputError, match=r"blob out0 holds NaN or infinity for crop 1"):
        crops = np.concatenate((draw_crops(1), np.full((1, *INPUT_SHAPE), 3e38, np.float32)))
        NcnnNetwork(*float_model, "fp32", INPUT_SHAPE).forward_on_threads(crops, 2)


def test_unknown_blobs_are_refused(float_model: Pair) -> None:
    with pytest.raises(InputError, match="there is no blob nowhere"):
        list(NcnnNetwork(*float_model, "fp32", INPUT_SHAPE).activations(draw_crops(1)[0], ["in0", "nowhere"]))


def test_a_precision_that_does_not_fit_the_model_is_refused(float_model: Pair, int8_model: Pair) -> None:
    with pytest.raises(InputError, match="no layer is marked as INT8"):
        NcnnNetwork(*float_model, "int8", INPUT_SHAPE)
    with pytest.raises(InputError, match="layer conv_a is INT8, so the model cannot be run as fp32"):
        NcnnNetwork(*int8_model, "fp32", INPUT_SHAPE)
    with pytest.raises(InputError, match="'int4' is no precision of ncnn"):
        NcnnNetwork(*float_model, "int4", INPUT_SHAPE)


def test_mismatched_and_damaged_files_are_refused(float_model: Pair, int8_model: Pair, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"int8.param|model.bin"):
        NcnnNetwork(int8_model[0], float_model[1], "int8", INPUT_SHAPE)
    with pytest.raises(InputError, match=r"model.param|int8.bin"):
        NcnnNetwork(float_model[0], int8_model[1], "fp32", INPUT_SHAPE)
    with pytest.raises(InputError, match="no such file"):
        NcnnNetwork(float_model[0], tmp_path / "missing.bin", "fp32", INPUT_SHAPE)
    with pytest.raises(InputError, match="no such file"):
        NcnnNetwork(tmp_path / "missing.param", float_model[1], "fp32", INPUT_SHAPE)
    truncated = tmp_path / "truncated.bin"
    truncated.write_bytes(float_model[1].read_bytes()[:-8])
    with pytest.raises(InputError, match="cut off in the weights of layer fc"):
        NcnnNetwork(float_model[0], truncated, "fp32", INPUT_SHAPE)


def test_a_layer_that_ncnn_lacks_is_refused(tmp_path: Path) -> None:
    pair = Builder().add("Input", "in0", "", "in0").add("Deformation", "it", "in0", "out0").write(tmp_path)
    with pytest.raises(InputError, match="ncnn cannot load it"):
        NcnnNetwork(*pair, "fp32", INPUT_SHAPE)


def test_crops_that_the_network_cannot_take_are_refused(float_model: Pair) -> None:
    # The inner product expects maps of 16 by 12.
    with pytest.raises(InputError, match=r"layer fc has weights for 1536 inputs, but gets \(8, 32, 32\) from crops of"):
        NcnnNetwork(*float_model, "fp32", (3, 32, 32))
    with pytest.raises(InputError, match=r"layer conv_a has weights for 3 inputs, but gets \(1, 16, 12\)"):
        NcnnNetwork(*float_model, "fp32", (1, 16, 12))


@pytest.mark.parametrize("inputs", [0, 2])
def test_a_network_has_one_input(inputs: int, tmp_path: Path) -> None:
    builder = Builder()
    for index in range(inputs):
        builder.add("Input", f"in{index}", "", f"in{index}")
    with pytest.raises(InputError, match=f"the network has {inputs} inputs"):
        NcnnNetwork(*builder.write(tmp_path), "fp32", INPUT_SHAPE)


def test_the_batch_axis_that_pnnx_leaves_is_dropped(tmp_path: Path) -> None:
    # As attention leaves it: (1, 3, 192) where the codec reads (3, 192).
    pair = (
        Builder()
        .add("Input", "in0", "", "in0")
        .add("Reshape", "flat", "in0", "out0", {0: 192, 1: 3, 2: 1})
        .write(tmp_path)
    )
    crops = draw_crops(2)
    (as_it_is,) = NcnnNetwork(*pair, "fp32", INPUT_SHAPE).forward(crops)
    (dropped,) = NcnnNetwork(*pair, "fp32", INPUT_SHAPE, [(None, 192)]).forward(crops)
    assert as_it_is.shape == (2, 1, 3, 192)
    np.testing.assert_array_equal(dropped, crops.reshape(2, 3, 192))
    with pytest.raises(InputError, match=r"outputs for a crop are \[\(1, 3, 192\)\], but the codec reads \?x384"):
        NcnnNetwork(*pair, "fp32", INPUT_SHAPE, [(None, 384)])


def test_network_from_memory_is_not_named_by_a_file_that_is_gone() -> None:
    with pytest.raises(InputError, match=r"^the network: no layer is marked as INT8"):
        NcnnNetwork.of(small_network().model(), "int8", INPUT_SHAPE)
    model = small_network().model()
    model.named("conv_out")[1]["weight"][:] = np.nan
    with pytest.raises(InputError, match=r"^the network: blob out0 holds NaN"):
        NcnnNetwork.of(model, "fp32", INPUT_SHAPE).forward_on_threads(draw_crops(1), 1)
