"""The step `fold-stem`: the same outputs, in INT8 to the bit."""

from typing import Any

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import Builder, Floats
from tests.unit.pose_fixtures import SCALES, SPEC

from posequant.base.errors import InputError
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize
from posequant.recipe.recipe import apply_recipe
from posequant.recipe.stem import foldable, folded

SHAPE = SPEC.input_shape
CROPS: Floats = np.random.default_rng(1).standard_normal((3, *SHAPE)).astype(np.float32)
LAST: dict[str, dict[str, Any]] = {"fold-stem": {}}


def network(
    kernel: tuple[int, int] = (7, 7), pads: dict[int, int] | None = None, stride: int = 2, channels: int = 3
) -> NcnnModel:
    """A first convolution, padded by `pads` (left, top, right, bottom by their keys), and a 1x1 convolution."""
    draw = np.random.default_rng(0)
    first: Floats = draw.normal(size=(16, channels, *kernel)).astype(np.float32)
    second: Floats = draw.normal(size=(17, 16, 1, 1)).astype(np.float32)
    bias: Floats = draw.normal(size=16).astype(np.float32)
    sizes = {0: 16, 1: kernel[1], 11: kernel[0], 3: stride, 5: 1, 6: first.size, 9: 1}
    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .add("Convolution", "stem", "in0", "a", sizes | (pads or {4: 3}), weight=first.ravel(), bias=bias)
        .convolution("head", "a", "out0", second)
        .model()
    )


def outputs(model: NcnnModel, precision: str) -> Floats:
    return NcnnNetwork.of(model, precision, SHAPE).forward(CROPS)[0]


@pytest.mark.parametrize(
    ("kernel", "pads"),
    [
        ((7, 7), {4: 3}),
        ((5, 5), {4: 2}),
        ((6, 6), {4: 2}),
        ((7, 5), {4: 2, 14: 3}),
        ((7, 7), {4: 2, 14: 1, 15: 3, 16: 4}),
        ((7, 7), {4: 3, 18: -2}),
    ],
    ids=["7x7", "5x5", "even", "not square", "padded to one side", "padded with a value"],
)
def test_outputs_are_the_same(kernel: tuple[int, int], pads: dict[int, int]) -> None:
    model = network(kernel, pads)
    np.testing.assert_allclose(outputs(folded(model, "stem"), "fp32"), outputs(model, "fp32"), atol=2e-3)
    plain, draft = (apply_recipe([*SCALES, *last], model, list(CROPS), 1) for last in ([], [LAST]))
    assert [layer.type for layer in draft.model.layers] == ["Input", "Reorg", "Convolution", "Convolution"]
    int8 = [quantize(one.model, one.table) for one in (plain, draft)]
    assert int8[1].named("stem")[0].int8_term
    np.testing.assert_array_equal(outputs(int8[1], "int8"), outputs(int8[0], "int8"))


def test_kernel_by_hand() -> None:
    model = network((5, 5), {4: 2})
    layer, weights = folded(model, "stem").named("stem")
    before = model.named("stem")[1]["weight"].reshape(16, 3, 5, 5)
    after = weights["weight"].reshape(16, 3, 2, 2, 3, 3)
    # The middle pixel is the first of the block in the middle, and the pixel before it the last of the block before.
    np.testing.assert_array_equal(after[:, :, 0, 0, 1, 1], before[:, :, 2, 2])
    np.testing.assert_array_equal(after[:, :, 1, 1, 0, 0], before[:, :, 1, 1])
    assert not after[:, :, 1, :, 2].any()
    assert [layer.integer(key) for key in (1, 3, 4, 15)] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "model",
    [network((3, 3), {4: 1}), network(stride=1), network(channels=8)],
    ids=["small kernel", "stride of 1", "many channels"],
)
def test_another_first_layer_is_left(model: NcnnModel) -> None:
    channels = 8 if model.named("stem")[0].integer(6) == 16 * 8 * 49 else 3
    assert foldable(model.layers, (channels, *SHAPE[1:])) is None


def test_an_input_of_odd_size_is_left() -> None:
    assert foldable(network().layers, SHAPE) is not None
    assert foldable(network().layers, (3, 15, 12)) is None


def test_a_stem_in_float_is_left() -> None:
    model = network()
    draft = apply_recipe([{"keep-float": {"layers": ["stem"]}}, *SCALES, LAST], model, list(CROPS), 1)
    assert draft.model.layers == model.layers


def test_it_is_the_last_step() -> None:
    with pytest.raises(InputError, match="'fold-stem' must be the last step"):
        apply_recipe([LAST, *SCALES], network(), list(CROPS), 1)
