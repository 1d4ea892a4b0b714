"""The noise of single layers, beside networks that have them in INT8 or in float."""

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import INPUT_SHAPE, draw_crops, small_network

from posequant.base.signal import Powers
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.ncnn2int8 import quantize
from posequant.recipe.budget import with_float_layers
from posequant.recipe.draft import Draft
from posequant.recipe.layer_noise import Relief, estimated, mean_difference, noise_alone, relief
from posequant.recipe.recipe import apply_recipe
from posequant.workflow.settings.recipe import Steps

CROPS = list(draw_crops(6))
SCALES: Steps = [{"weights": {"bits": 6}}, {"activations": {"method": "absmax"}}]


@pytest.fixture(scope="module")
def draft() -> Draft:
    return apply_recipe(SCALES, small_network().model(), CROPS, 1)


@pytest.fixture(scope="module")
def centered() -> Draft:
    return apply_recipe([*SCALES, {"center": {}}], small_network().model(), CROPS, 1)


def powers(draft: Draft) -> list[Powers]:
    """Of the whole INT8 network's outputs, crop by crop."""
    crops = np.stack(CROPS)
    wanted = NcnnNetwork.of(draft.reference, "fp32", INPUT_SHAPE).forward(crops)
    found = NcnnNetwork.of(quantize(draft.model, draft.table), "int8", INPUT_SHAPE).forward(crops)
    outputs = [Powers.of_each(*pair) for pair in zip(wanted, found, strict=True)]
    return [Powers.total(of_one) for of_one in zip(*outputs, strict=True)]


@pytest.mark.parametrize("name", ["conv_b", "conv_d", "conv_g", "convdw_c"])
def test_noise_of_a_layer_alone_is_that_of_a_network_with_no_other_in_int8(draft: Draft, name: str) -> None:
    # Float layers of an INT8 file have weights of half precision.
    only = replace(draft, keep_float=frozenset(draft.names) - {name})
    assert noise_alone(draft, CROPS, 2)[name] == pytest.approx(Powers.total(powers(only)).ratio, rel=0.05, abs=1e-6)

    layer = draft.model.named(name)[0]
    float_network = NcnnNetwork.of(draft.reference, "fp32", INPUT_SHAPE)
    pairs = [list(float_network.activations(crop, [layer.bottoms[0], layer.tops[0]])) for crop in CROPS]
    alone = LayerNetwork(*draft.quantized(layer))
    # None of these has an activation, so that a bias takes the mean error off.
    errors = [mean_difference(output, alone.run([values])[0]) for values, output in pairs]
    bias = draft.model.named(name)[1]["bias"]
    only = only.with_weights({name: {"bias": (bias + np.mean(errors, axis=0).ravel()).astype(np.float32)}})
    # Nor does it matter what the bias was corrected for.
    corrected = replace(draft.with_weights({name: {"bias": bias + np.float32(0.3)}}), biases_corrected=True)
    expected = Powers.total(powers(only)).ratio
    assert noise_alone(corrected, CROPS, 2)[name] == pytest.approx(expected, rel=0.05, abs=1e-6)


@pytest.mark.parametrize("which", ["draft", "centered"])
def test_relief_is_what_is_gone_when_a_layer_is_in_float(which: str, request: pytest.FixtureRequest) -> None:
    draft: Draft = request.getfixturevalue(which)
    ratio, found = relief(draft, CROPS, draft.names, 2)
    whole = powers(draft)
    assert ratio == pytest.approx(Powers.total(whole).ratio, rel=0.01)
    for name in draft.names:
        left = powers(with_float_layers(draft, frozenset({name})))
        gone = np.array([one.noise - other.noise for one, other in zip(whole, left, strict=True)])
        total = Powers.total(whole).noise
        assert found[name].share == pytest.approx(gone.sum() / total, abs=0.02), name
        error = np.std(gone, ddof=1) * len(gone) ** 0.5 / total
        assert found[name].standard_error == pytest.approx(error, abs=0.02), name


def test_mean_error_counts_only_where_no_bias_takes_it_off(draft: Draft) -> None:
    off = draft.with_weights({"conv_g": {"bias": draft.model.named("conv_g")[1]["bias"] + np.float32(9)}})
    drafts = [replace(off, biases_corrected=corrected) for corrected in (False, True)]
    without, kept = (relief(one, CROPS, ["conv_g"], 1)[1]["conv_g"].share for one in drafts)
    assert without > 0.9
    assert abs(kept) < 0.1


@pytest.mark.parametrize(("shape", "expected"), [((2, 1, 2), (2, 1, 1)), ((2, 3), (3,)), ((4,), (4,))])
def test_means_are_those_of_channels(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert mean_difference(np.ones(shape, np.float32), np.zeros(shape, np.float32)).shape == expected


def test_extremes_do_not_shift_the_others() -> None:
    output = np.array([[[100.0, 1.0]]], np.float32)
    # Of |y|² + mean, 15,001 and 5,002: the second position counts three times as much.
    off = mean_difference(output, output - np.array([[[8.0, 0.0]]], np.float32))
    assert off.item() == pytest.approx(8 * 5001.5 / (5001.5 + 15000.5), rel=1e-5)


def test_noise_does_not_depend_on_threads(draft: Draft) -> None:
    draft = replace(draft, biases_corrected=True)
    one, three = ((noise_alone(draft, CROPS, threads), relief(draft, CROPS, ["conv_d"], threads)) for threads in (1, 3))
    assert one == three


def test_one_crop_tells_nothing_of_chance(draft: Draft) -> None:
    _, found = relief(draft, CROPS[:1], ["conv_d"], 1)
    assert estimated(0.25, found["conv_d"]) == 0.25


@pytest.mark.parametrize(
    ("alone", "share", "expected"),
    [
        pytest.param(0.38, 0.25, 0.38, id="within three standard errors"),
        pytest.param(0.1, 0.5, 0.35, id="below what is gone"),
        pytest.param(0.9, 0.5, 0.65, id="above what is gone"),
        pytest.param(0.8, -0.5, 0.2, id="never less than a quarter"),
    ],
)
def test_estimate_by_hand(alone: float, share: float, expected: float) -> None:
    assert estimated(alone, Relief(share, 0.05)) == pytest.approx(expected)
