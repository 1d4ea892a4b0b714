"""The step `equalize`: which channels are scaled alike, by how much, and that the network stays the same function."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Builder, draw_crops, small_network, sqnr

from posequant.ncnn_format.model import Layer, NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.recipe.draft import Draft, Floats
from posequant.recipe.equalization import Channels, class_factors, equalize
from posequant.workflow.settings.recipe import EqualizeStep

CROPS = list(draw_crops(6))


def weight(*shape: int, seed: int = 0) -> Floats:
    values: Floats = np.random.default_rng(seed).normal(size=shape, scale=0.3).astype(np.float32)
    return values


def shuffled_network() -> NcnnModel:
    """Half of the channels go through a depthwise layer, the other half round it; both are shuffled and split again."""
    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(8, 3, 3, 3), weight(8), relu=True)
        .add("Slice", "slice", "a", "left right", {-23300: "2,4,-233"})
        .convolution("convdw", "left", "deep", weight(4, 1, 3, 3, seed=1), weight(4), group=4)
        .add("Concat", "concat", "deep right", "both", {0: 0})
        .add("ShuffleChannel", "shuffle", "both", "mixed", {0: 2})
        .add("Slice", "slice_2", "mixed", "one two", {-23300: "2,4,-233"})
        .convolution("conv_one", "one", "out0", weight(2, 4, 1, 1, seed=2), weight(2))
        .convolution("convdw_two", "two", "out1", weight(4, 1, 3, 3, seed=3), weight(4), group=4)
        .model()
    )


def uneven(model: NcnnModel, name: str) -> NcnnModel:
    """The network with the output channels of a layer of very unequal size."""
    weights = model.named(name)[1]
    count = len(weights["bias"])
    sizes = np.geomspace(0.02, 1, count).astype(np.float32)
    rows = (weights["weight"].reshape(count, -1) * sizes[:, None]).ravel()
    return Draft.of(model).with_weights({name: {"weight": rows, "bias": weights["bias"] * sizes}}).model


def outputs(model: NcnnModel) -> list[Floats]:
    return NcnnNetwork.of(model, "fp32", INPUT_SHAPE).forward(np.stack(CROPS))


def fixed(channels: Channels) -> Mapping[str, NDArray[np.bool_]]:
    return {blob: channels.fixed[classes] for blob, classes in channels.classes.items()}


def test_channels_that_meet_in_a_sum_are_scaled_alike() -> None:
    channels = Channels.of(small_network().model(), CROPS[0])
    for blob in ("f0", "f1", "g", "h"):
        np.testing.assert_array_equal(channels.classes[blob], channels.classes["f"])
    assert len({*channels.classes["a"], *channels.classes["b"], *channels.classes["f"]}) == 24


def test_inputs_outputs_and_what_others_read_stay() -> None:
    found = fixed(Channels.of(small_network().model(), CROPS[0]))
    # e is read by an inner product, whose weights are not scaled.
    for blob in ("in0", "out0", "c", "d", "e"):
        assert found[blob].all(), blob
    for blob in ("a", "b", "f"):
        assert not found[blob].any(), blob


def test_channels_are_followed_through_slices_concatenations_and_shuffles() -> None:
    channels = Channels.of(shuffled_network(), CROPS[0])
    deep, right = channels.classes["deep"], channels.classes["right"]
    np.testing.assert_array_equal(channels.classes["mixed"], np.stack([deep, right], axis=1).ravel())
    np.testing.assert_array_equal(channels.classes["one"], [deep[0], right[0], deep[1], right[1]])
    assert not any(channels.fixed[classes].any() for classes in (deep, right))


def test_shuffle_by_reshapes_is_followed() -> None:
    height, width = INPUT_SHAPE[1:]
    reshaped = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(6, 3, 1, 1), weight(6))
        .add("Reshape", "r1", "a", "r1", {0: width * height, 1: 3, 2: 2})
        .add("Permute", "p", "r1", "p", {0: 2})
        .add("Reshape", "r2", "p", "r2", {0: width, 1: height, 2: 6})
        .convolution("conv_b", "r2", "out0", weight(2, 6, 1, 1), weight(2))
    )
    channels = Channels.of(reshaped.model(), CROPS[0])
    np.testing.assert_array_equal(channels.classes["r2"], channels.classes["a"][[0, 3, 1, 4, 2, 5]])


LAYERS = [Layer("Convolution", "dense", ("a",), ("x",), {}), Layer("ConvolutionDepthWise", "deep", ("b",), ("y",), {})]


def factors(
    strength: float, *, limits: Mapping[str, float] | None = None, alike: bool = False, still: bool = False
) -> list[float]:
    """Those of three channels that a dense layer reads, and of three that a depthwise layer reads."""
    classes = {"a": np.array([0, 1, 2]), "b": np.array([0, 1, 2]) + (0 if alike else 3)}
    channels = Channels(classes, np.full(6, still), limits or {})
    reach = {"a": np.array([4.0, 1.0, 0.0], np.float32), "b": np.array([9.0, 1.0, 0.0], np.float32)}
    return [float(factor) for factor in class_factors(channels, LAYERS, reach, strength)]


def test_factors_by_hand() -> None:
    assert factors(0.5) == pytest.approx([1, 2, 1, 1, 9, 1])
    assert factors(0) == pytest.approx([1, 1, 1, 1, 9, 1])
    assert factors(1) == pytest.approx([1, 4, 1, 1, 9, 1])


def test_channel_of_two_tensors_goes_by_the_one_in_which_it_is_larger() -> None:
    assert factors(1, alike=True)[:3] == pytest.approx([1, 4, 1])


def test_no_channel_is_scaled_beyond_its_clip() -> None:
    assert factors(1, limits={"b": 3.0})[3:] == pytest.approx([1, 2.1, 1])


def test_fixed_channels_stay() -> None:
    assert factors(1, still=True) == [1] * 6


@pytest.mark.parametrize(
    ("model", "layer", "blob"),
    [(small_network().model(), "conv_b", "b0"), (shuffled_network(), "conv_a", "left")],
    ids=["sums", "shuffles"],
)
def test_equalized_network_is_the_same_function(model: NcnnModel, layer: str, blob: str) -> None:
    before = uneven(model, layer)
    after = equalize(Draft.of(before), CROPS, 2, EqualizeStep(strength=1)).model
    spread = []
    for network in (before, after):
        (values,) = NcnnNetwork.of(network, "fp32", INPUT_SHAPE).activations(CROPS[0], [blob])
        ranges = np.abs(values).max(axis=(1, 2))
        spread.append(float(ranges.max() / ranges.min()))
    assert spread[0] > 5
    assert spread[1] < spread[0] / 2
    for one, other in zip(outputs(before), outputs(after), strict=True):
        assert sqnr(one, other) > 100


def test_channels_behind_a_clip_are_the_same_function_on_the_crops_that_were_seen() -> None:
    model = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(8, 3, 3, 3), weight(8))
        .convolution("convdw", "a", "c", weight(8, 1, 3, 3, seed=1), weight(8), group=8)
        .convolution("conv_b", "c", "out0", weight(2, 8, 1, 1, seed=2), weight(2))
        .model()
    )
    layers = [
        Layer(one.type, one.name, one.bottoms, one.tops, {**one.params, 9: "3", -23310: "2,0.0,6.0"})
        if one.name == "conv_a"
        else one
        for one in model.layers
    ]
    before = uneven(NcnnModel(layers, model.weights), "conv_a")
    after = equalize(Draft.of(before), CROPS, 1, EqualizeStep(strength=1)).model
    assert not np.array_equal(after.named("conv_a")[1]["weight"], before.named("conv_a")[1]["weight"])
    assert sqnr(outputs(before)[0], outputs(after)[0]) > 100
