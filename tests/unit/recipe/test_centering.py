"""The step `center`: what is never negative uses all levels of INT8, and the float network stays the same function."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Builder, Floats, draw_crops, sqnr

from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize
from posequant.recipe.activation_scales import scale_activations
from posequant.recipe.centering import Extent, center, centered_scale, storages, stored_as
from posequant.recipe.draft import Draft
from posequant.recipe.weight_scales import scale_weights
from posequant.workflow.settings.recipe import ActivationsStep, CenterStep, WeightsStep

CROPS = list(draw_crops(6))
RNG = np.random.default_rng(0)


def weight(*shape: int) -> Floats:
    values: Floats = RNG.normal(size=shape, scale=np.prod(shape[1:]) ** -0.5).astype(np.float32)
    return values


def inverted_bottleneck() -> NcnnModel:
    """As in MobileNetV2: what the padded depthwise layer and the projection read is never negative."""
    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(16, 3, 3, 3), weight(16), relu=True)
        .convolution("convdw", "a", "b", weight(16, 1, 3, 3), weight(16), relu=True, group=16)
        .convolution("conv_c", "b", "out0", weight(5, 16, 1, 1))
        .model()
    )


def residual_network() -> NcnnModel:
    """As in ResNet: a ReLU behind each sum, whose output is read by convolutions and by the next sum."""
    builder = Builder().add("Input", "in0", "", "in0")
    builder.convolution("stem", "in0", "x", weight(8, 3, 3, 3), weight(8), relu=True)
    for number, (source, end) in enumerate((("x", "y"), ("y", "z"))):
        builder.add("Split", f"split_{number}", source, f"{source}0 {source}1")
        builder.convolution(f"conv_{number}", f"{source}0", f"h{number}", weight(8, 8, 3, 3), weight(8), relu=True)
        builder.convolution(f"last_{number}", f"h{number}", f"r{number}", weight(8, 8, 3, 3), weight(8))
        builder.add("BinaryOp", f"add_{number}", f"r{number} {source}1", f"s{number}", {0: 0})
        builder.add("ReLU", f"relu_{number}", f"s{number}", end)
    return builder.convolution("head", "z", "out0", weight(5, 8, 1, 1), weight(5)).model()


def head_of_deconvolutions(kind: str) -> NcnnModel:
    """As in a SimpleBaseline: what deconvolutions give is never negative, and a convolution reads the last of it."""
    groups = {7: 8} if kind == "DeconvolutionDepthWise" else {}
    builder = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(8, 3, 3, 3), weight(8), relu=True)
    )
    for number, (source, top) in enumerate((("a", "b"), ("b", "c"))):
        values = weight(8, 1 if groups else 8, 4, 4)
        sizes = {0: 8, 1: 4, 11: 4, 3: 2, 13: 2, 4: 1, 14: 1, 5: 1, 6: values.size, 9: 1}
        builder.add(kind, f"deconv_{number}", source, top, sizes | groups, weight=values.ravel(), bias=weight(8))
    return builder.convolution("conv_c", "c", "out0", weight(5, 8, 3, 3)).model()


def linear_bottlenecks() -> NcnnModel:
    """As in MobileNetV2: what the expansions read may be negative, is a sum and is not padded."""
    builder = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("stem", "in0", "s", weight(8, 3, 3, 3), weight(8), relu=True)
        .convolution("first", "s", "x", weight(8, 8, 1, 1), 3 * weight(8))
        .add("Split", "split", "x", "x0 x1")
        .convolution("expand", "x0", "e", weight(16, 8, 1, 1), weight(16), relu=True)
        .convolution("convdw", "e", "d", weight(16, 1, 3, 3), weight(16), relu=True, group=16)
        .convolution("project", "d", "p", weight(8, 16, 1, 1), 3 * weight(8))
        .add("BinaryOp", "add", "p x1", "y", {0: 0})
    )
    return builder.convolution("head", "y", "out0", weight(5, 8, 1, 1), weight(5)).model()


def scaled_draft(model: NcnnModel) -> Draft:
    draft = scale_weights(Draft.of(model), CROPS, 1, WeightsStep())
    return scale_activations(draft, CROPS, 1, ActivationsStep(method="absmax"))


def extents(**uppers: float) -> dict[str, Extent]:
    """Those of an input that may be negative, and of blobs that are not."""
    return {"in0": Extent(np.full(3, -2.0), np.full(3, 2.0))} | {
        blob: Extent(0.0, float(upper)) for blob, upper in uppers.items()
    }


def outputs(model: NcnnModel, precision: str = "fp32") -> Floats:
    (found,) = NcnnNetwork.of(model, precision, INPUT_SHAPE).forward(np.stack(CROPS))
    return found


@pytest.mark.parametrize(
    "model",
    [
        inverted_bottleneck(),
        residual_network(),
        linear_bottlenecks(),
        head_of_deconvolutions("Deconvolution"),
        head_of_deconvolutions("DeconvolutionDepthWise"),
    ],
    ids=["bottleneck", "residual", "linear", "deconvolutions", "depthwise deconvolutions"],
)
def test_float_network_is_the_same_function(model: NcnnModel) -> None:
    draft = center(scaled_draft(model), CROPS, 2, CenterStep())
    assert sqnr(outputs(model), outputs(draft.reference)) > 100


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (inverted_bottleneck(), {"convdw", "conv_c"}),
        (residual_network(), {"conv_0", "last_0", "conv_1", "last_1", "head"}),
        (linear_bottlenecks(), {"first", "expand", "convdw", "project", "head"}),
        (head_of_deconvolutions("DeconvolutionDepthWise"), {"conv_c"}),
    ],
    ids=["bottleneck", "residual", "linear", "deconvolutions"],
)
def test_what_is_stored_about_the_middle_has_smaller_steps(model: NcnnModel, inputs: set[str]) -> None:
    before = scaled_draft(model)
    draft = center(before, CROPS, 1, CenterStep())
    for name in before.names:
        ratio = draft.activation_scales[name] / before.activation_scales[name]
        assert (ratio > 1.2) == (name in inputs), name
        (values,) = NcnnNetwork.of(draft.reference, "fp32", INPUT_SHAPE).activations(
            CROPS[0], [draft.model.named(name)[0].bottoms[0]]
        )
        levels = values * draft.activation_scales[name]
        assert np.abs(levels).max() < 127.5
        assert levels.min() < -40


def test_half_the_step_costs_half_the_noise() -> None:
    # Weights of whole numbers of steps are not rounded: what is left is the noise of the activations.
    model = inverted_bottleneck()
    draft = scaled_draft(model)
    exact = {}
    for name, scales in draft.weight_scales.items():
        rows = draft.model.named(name)[1]["weight"].reshape(len(scales), -1)
        exact[name] = {"weight": (np.rint(rows * scales[:, None]) / scales[:, None]).astype(np.float32).ravel()}
    model = draft.with_weights(exact).model
    before = scaled_draft(model)
    after = center(before, CROPS, 1, CenterStep())
    wanted = outputs(model)
    noise = [sqnr(wanted, outputs(quantize(one.model, one.table), "int8")) for one in (before, after)]
    assert noise[1] > noise[0] + 3


def test_channels_between_linear_layers_have_their_own_middle() -> None:
    model = linear_bottlenecks()
    ends = {"x0": Extent(np.arange(8.0) - 4, np.arange(8.0)), "y": Extent(np.full(8, -1.0), np.full(8, 4.0))}
    found = storages(model.layers, extents() | ends)
    np.testing.assert_allclose(found["x0"].shift, np.arange(8.0) - 2)
    np.testing.assert_allclose(found["y"].shift, np.full(8, 1.5))
    # (m - p) + (n - x) is (m + n) - (p + x).
    np.testing.assert_allclose(found["p"].shift + found["x1"].shift, found["y"].shift)


def test_copies_of_a_tensor_have_one_middle() -> None:
    builder = Builder().add("Input", "in0", "", "in0").convolution("conv", "in0", "x", weight(8, 3, 3, 3), weight(8))
    builder.add("Split", "split", "x", "x0 x1")
    for name in ("x0", "x1"):
        builder.convolution(f"read_{name}", name, f"out_{name}", weight(2, 8, 1, 1))
    ends = Extent(np.full(8, -1.0), np.arange(8.0))
    found = storages(builder.model().layers, {"x0": ends, "x1": ends})
    for blob in ("x", "x0", "x1"):
        np.testing.assert_allclose(found[blob].shift, (np.arange(8.0) - 1) / 2)


def test_tensor_of_channels_that_never_change_has_a_scale() -> None:
    ends = Extent(np.full(8, -1.0), np.full(8, -1.0))
    assert centered_scale(ends, np.full(8, -1.0)) == 127


def test_padded_layer_gets_no_channels_with_a_middle_of_their_own() -> None:
    model = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(8, 3, 3, 3), weight(8))
        .convolution("conv_b", "a", "out0", weight(5, 8, 3, 3))
        .model()
    )
    assert storages(model.layers, {"a": Extent(np.full(8, -1.0), np.full(8, 4.0))}) == {}


def test_padding_is_the_integer_that_stands_for_zero() -> None:
    draft = center(scaled_draft(inverted_bottleneck()), CROPS, 1, CenterStep())
    layer, _ = draft.reference.named("convdw")
    int8, _ = quantize(draft.model, draft.table).named("convdw")
    assert int8.real(18) == 127
    assert layer.real(18) * draft.activation_scales["convdw"] == pytest.approx(127, abs=1e-3)


def test_packed_channels_are_padded_as_single_ones_are() -> None:
    draft = center(scaled_draft(inverted_bottleneck()), CROPS, 1, CenterStep())
    int8 = outputs(quantize(draft.model, draft.table), "int8")
    # At the border, where pads count, the noise is what it is inside.
    difference = int8 - outputs(draft.reference)
    inside = difference[:, :, 2:-2, 2:-2]
    assert np.square(difference).mean() < 2 * np.square(inside).mean()


def test_tensor_that_a_layer_reads_that_cannot_be_changed_stays() -> None:
    model = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(8, 3, 3, 3), weight(8), relu=True)
        .add("Split", "split", "a", "a0 a1")
        .add("Pooling", "pool", "a0", "out1", {0: 0, 1: 2, 2: 2})
        .convolution("conv_b", "a1", "out0", weight(5, 8, 1, 1))
        .model()
    )
    assert storages(model.layers, extents(a1=3)) == {}


def test_sum_that_cannot_come_out_right_leaves_its_tensors_as_they_are() -> None:
    # Both summands are read by convolutions, too, and so is the sum.
    builder = Builder().add("Input", "in0", "", "in0").add("Split", "s", "in0", "i0 i1")
    for name, source in (("a", "i0"), ("b", "i1")):
        builder.convolution(f"conv_{name}", source, name, weight(8, 3, 3, 3), weight(8), relu=True)
        builder.add("Split", f"split_{name}", name, f"{name}0 {name}1")
        builder.convolution(f"read_{name}", f"{name}0", f"out_{name}", weight(2, 8, 1, 1))
    builder.add("BinaryOp", "add", "a1 b1", "c", {0: 0}).convolution("last", "c", "out", weight(2, 8, 1, 1))
    found = storages(builder.model().layers, extents(a0=2, b0=2, c=2))
    assert not any(storage.shifted for storage in found.values())


def test_linear_output_in_two_sums_that_cannot_both_come_out_right_stays() -> None:
    builder = Builder().add("Input", "in0", "", "in0").add("Split", "s", "in0", "i0 i1 i2")
    builder.convolution("linear", "i0", "f", weight(8, 3, 3, 3)).add("Split", "split_f", "f", "f0 f1")
    builder.convolution("conv_a", "i1", "a", weight(8, 3, 3, 3), weight(8), relu=True)
    builder.add("Split", "split_a", "a", "a0 a1").convolution("read_a", "a0", "out_a", weight(2, 8, 1, 1))
    builder.convolution("conv_d", "i2", "d", weight(8, 3, 3, 3), weight(8), relu=True)
    builder.add("BinaryOp", "add_y", "f0 a1", "sum", {0: 0}).add("ReLU", "relu", "sum", "y")
    builder.convolution("read_y", "y", "out_y", weight(2, 8, 1, 1))
    builder.add("BinaryOp", "add_z", "f1 d", "z", {0: 0}).convolution("read_z", "z", "out_z", weight(2, 8, 1, 1))
    found = storages(builder.model().layers, {**extents(a0=2, y=3), "z": Extent(np.full(8, -1.0), np.full(8, 1.0))})
    assert not any(storage.shifted for storage in found.values())


@given(st.floats(0.01, 1000), st.floats(0.05, 20))
def test_zero_is_stored_as_an_integer(upper: float, ratio: float) -> None:
    shift = upper / 2 * ratio
    scale = float(centered_scale(Extent(0.0, upper), shift))
    zero = shift * scale
    assert zero == pytest.approx(round(zero), abs=0.05)
    assert 1 <= round(zero) <= 127
    assert max(shift, upper - shift) * scale < 127.5 or round(zero) == 1


def test_network_is_rewritten_and_back() -> None:
    model = inverted_bottleneck()
    stored = storages(model.layers, extents(a=3, b=2))
    assert {blob: storage.sign for blob, storage in stored.items()} == {"a": -1, "b": -1}
    assert (stored["a"].shift, stored["b"].shift) == (1.5, 1.0)
    again = stored_as(stored_as(model, stored), {})
    assert sqnr(outputs(model), outputs(again)) > 100
