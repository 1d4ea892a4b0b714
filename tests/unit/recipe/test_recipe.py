"""The steps of recipes, each against a case worked by hand or a slow and literal reference, and recipes as a whole."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Builder, Floats, draw_crops, small_network, sqnr, write_crops

from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer, NcnnModel, Weights
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.ncnn2int8 import quantize, quantize_files, quantize_layer
from posequant.quantize.ncnn2table import calibrate
from posequant.quantize.propagation import Visit, propagate
from posequant.quantize.table import CalibrationTable
from posequant.quantize.weights import absmax_scales
from posequant.recipe.activation_scales import (
    CLIPS,
    climb,
    descend,
    percentile_threshold,
    representative,
    scale_activations,
)
from posequant.recipe.bias import FloatWay, Sums, correct_bias, mean_error
from posequant.recipe.draft import Draft
from posequant.recipe.positions import by_channel, passed_on, position_weights, without_activation
from posequant.recipe.recipe import apply_recipe, keep_float
from posequant.recipe.rounding import best_integers, columns, learn_rounding
from posequant.recipe.weight_scales import mse_scales, rounding_errors, scale_weights
from posequant.workflow.settings.recipe import (
    ActivationsStep,
    CorrectBiasStep,
    KeepFloatStep,
    Method,
    RoundStep,
    Steps,
    WeightsStep,
)

CROPS = list(draw_crops(6))
RECIPE: list[dict[str, dict[str, Any]]] = [
    {"equalize": {"strength": 0.5}},
    {"weights": {"bits": 8, "scales": "mse"}},
    {"activations": {"method": "output", "crops": 3}},
    {"center": {}},
    {"round": {"seed": 0}},
    {"correct-bias": {}},
]


def small_draft() -> Draft:
    return Draft.of(small_network().model())


def scaled_draft(method: Method = "absmax") -> Draft:
    draft = scale_weights(small_draft(), CROPS, 1, WeightsStep())
    return scale_activations(draft, CROPS, 1, ActivationsStep(method=method))


def int8_outputs(draft: Draft, folder: Path, crops: Floats) -> list[Floats]:
    """What the whole INT8 network of a draft gives."""
    files = folder / "int8.param", folder / "int8.bin"
    quantize(draft.model, draft.table).write(*files)
    return NcnnNetwork(*files, "int8", INPUT_SHAPE).forward(crops)


# Positions


def test_positions_count_by_the_share_of_an_error() -> None:
    outputs = [np.array([[[3.0, 0.0]], [[4.0, 0.0]]], np.float32)]  # |y|² is 25 and 0, on average 12.5
    (weights,) = position_weights(outputs)
    np.testing.assert_allclose(weights, np.array([1 / 37.5, 1 / 12.5]) / (1 / 37.5 + 1 / 12.5), rtol=1e-6)


@pytest.mark.parametrize(("shape", "expected"), [((5, 2, 3), (5, 6)), ((4, 5), (5, 4)), ((5,), (5, 1))])
def test_outputs_of_every_shape_have_channels_and_positions(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert by_channel(np.zeros(shape, np.float32)).shape == expected


def test_activation_is_taken_off_a_layer() -> None:
    layer = Layer("Convolution", "c", ("a",), ("b",), {0: "1", 9: "3", -23310: "2,0.0,6.0"})
    assert without_activation(layer).params == {0: "1"}


# Weights


def test_absmax_scale_takes_the_largest_weight_to_the_limit() -> None:
    channels = np.array([[0.5, -2.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(absmax_scales(channels, 127), [63.5, 1])


def test_mse_scale_is_no_worse_than_any_on_a_fine_grid() -> None:
    channels = np.random.default_rng(0).standard_t(3, (3, 40)).astype(np.float32)
    found = rounding_errors(channels, mse_scales(channels, 31), 31)
    for share in np.linspace(0.4, 1, 301):
        scales = (31 / (np.abs(channels).max(axis=1) * share)).astype(np.float32)
        literal = [
            sum((np.clip(np.rint(w * s), -31, 31) / s - w) ** 2 for w in row.astype(float))
            for row, s in zip(channels, scales.astype(float), strict=True)
        ]
        assert (found <= np.array(literal) * 1.02).all()


def test_six_bits_are_for_convolutions_that_winograd_computes() -> None:
    draft = scale_weights(small_draft(), CROPS, 1, WeightsStep(bits=6))
    limits = dict(draft.weight_limits)
    assert {name for name, limit in limits.items() if limit == 31} == {"conv_a", "conv_d", "conv_f"}
    assert set(scale_weights(small_draft(), CROPS, 1, WeightsStep()).weight_limits.values()) == {127}


# Activations


@pytest.mark.parametrize("method", ["kl", "aciq"])
def test_six_bits_and_kl_or_aciq_are_what_ncnn2table_finds(method: Method, tmp_path: Path) -> None:
    table = calibrate(*small_network().write(tmp_path), write_crops(tmp_path / "crops", np.stack(CROPS)), method)
    draft = scale_activations(small_draft(), CROPS, 2, ActivationsStep(method=method))
    for name, scale in table.activation_scales.items():
        assert draft.activation_scales[name] == pytest.approx(scale, rel=1e-5), name


def test_percentile_by_hand() -> None:
    counts = np.array([50, 30, 15, 5])
    assert percentile_threshold(counts, np.float32(8), 0.8) == 4
    assert percentile_threshold(counts, np.float32(8), 0.81) == 6
    assert percentile_threshold(counts, np.float32(8), 1) == 8


def test_search_ends_after_three_worse_clips() -> None:
    tried: list[float] = []

    def loss(clip: float) -> float:
        tried.append(clip)
        return abs(round(10 * clip) - 8)

    assert descend(loss) == 0.8
    assert tried == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]


@pytest.mark.parametrize(
    ("start", "expected"),
    [(1.0, [1.0, 0.9, 0.8, 0.7]), (0.8, [0.8, 0.7, 0.9]), (0.6, [0.6, 0.5, 0.7, 0.8, 0.9])],
)
def test_search_from_a_start_goes_to_the_nearest_least_loss(start: float, expected: list[float]) -> None:
    tried: list[float] = []

    def loss(clip: float) -> float:
        tried.append(clip)
        return abs(round(10 * clip) - 8)

    assert climb(loss, start) == 0.8
    assert tried == expected


def test_crops_with_the_largest_values_are_looked_at_and_some_stand_for_the_rest() -> None:
    magnitudes = [float(place % 10) for place in range(20)]
    found = representative(magnitudes)
    assert {place: count for place, count in found.items() if count == 1} == dict.fromkeys([9, 19, 8, 18], 1.0)
    assert [magnitudes[place] for place, count in found.items() if count == 4] == [6, 4, 2, 0]
    assert sum(found.values()) == 20


@pytest.mark.parametrize("crops", [1, 4, 6, 8, 32])
def test_crops_looked_at_stand_for_all(crops: int) -> None:
    found = representative([1.0] * crops)
    assert len(found) == min(crops, 8)
    assert sum(found.values()) == crops


@pytest.mark.parametrize("name", ["conv_a", "conv_g"])
def test_output_method_finds_the_clip_that_changes_the_output_least(name: str, tmp_path: Path) -> None:
    draft = small_draft()
    draft = replace(draft, keep_float=frozenset(draft.names) - {name})
    draft = scale_weights(draft, CROPS, 1, WeightsStep())
    found = scale_activations(draft, CROPS, 2, ActivationsStep(method="output")).activation_scales[name]
    crops = np.stack(CROPS)
    wanted = NcnnNetwork(*small_network().write(tmp_path), "fp32", INPUT_SHAPE).forward(crops)
    largest = scale_activations(draft, CROPS, 1, ActivationsStep(method="absmax")).activation_scales[name]

    def loss(clip: float) -> float:
        outputs = int8_outputs(replace(draft, activation_scales={name: np.float32(largest / clip)}), tmp_path, crops)
        pairs = zip(outputs, wanted, strict=True)
        return sum(float(((one - other) ** 2).sum() / (other**2).sum()) for one, other in pairs)

    losses = {clip: loss(clip) for clip in CLIPS}
    assert losses[min(CLIPS, key=lambda clip: abs(largest / clip - found))] <= 1.01 * min(losses.values())


@pytest.mark.parametrize("method", ["absmax", "mse", "output"])
def test_readers_of_one_tensor_share_a_scale(method: Method) -> None:
    scales = scaled_draft(method).activation_scales
    assert scales["convdw_c"] == scales["conv_d"]
    assert len({float(scale) for scale in scales.values()}) > 3


def test_input_that_is_zero_is_refused_by_the_name_of_the_layer() -> None:
    zero = [np.zeros(INPUT_SHAPE, np.float32)]
    with pytest.raises(InputError, match=r"conv_a is zero on every crop. Keep the layer in float"):
        scale_activations(small_draft(), zero, 1, ActivationsStep(method="absmax"))


# Biases


@pytest.mark.parametrize("gain", [False, True])
def test_corrected_bias_leaves_no_mean_error(gain: bool) -> None:
    draft = correct_bias(scaled_draft(), CROPS, 2, CorrectBiasStep(gain=gain))
    left: dict[str, float] = {}

    def look(visit: Visit) -> tuple[Layer, Weights]:
        quantized = draft.quantized(visit.layer)
        # Where a ReLU follows, other positions count after the correction than before.
        if "bias" in visit.weights and not visit.layer.integer(9):
            largest = max(np.abs(output).max() for output in visit.outputs)
            left[visit.layer.name] = float(np.abs(mean_error(visit, *quantized)).max() / largest)
        return quantized

    propagate(draft.reference, CROPS, look, draft.names)
    assert len(left) == 5
    assert max(left.values()) < 1e-5


def test_error_that_the_activation_hides_is_left_alone() -> None:
    relu = Layer("Convolution", "c", ("a",), ("b",), {9: "1"})
    clip = Layer("Convolution", "c", ("a",), ("b",), {9: "3", -23310: "2,-1.0,2.0"})
    values = np.array([-3.0, -0.5, 1.0, 3.0], np.float32)
    assert passed_on(relu, values).tolist() == [False, False, True, True]
    assert passed_on(clip, values).tolist() == [False, True, True, False]
    assert passed_on(replace(relu, params={}), values).all()


def test_wrong_bias_is_put_right() -> None:
    draft = scaled_draft()
    off = draft.with_weights({"conv_d": {"bias": draft.model.named("conv_d")[1]["bias"] + np.float32(3)}})
    corrected = correct_bias(off, CROPS, 1, CorrectBiasStep()).model.named("conv_d")[1]["bias"]
    expected = correct_bias(draft, CROPS, 1, CorrectBiasStep()).model.named("conv_d")[1]["bias"]
    np.testing.assert_allclose(corrected, expected, atol=1e-4)


@pytest.mark.parametrize(("limit", "known"), [(10**6, True), (1000, False)], ids=["kept", "too large to keep"])
def test_biases_are_the_same_with_what_is_known_of_the_float_network(limit: int, known: bool) -> None:
    draft, way = scaled_draft(), FloatWay(limit)
    # conv_d is in float the first time, and in INT8 the second.
    for kept in (frozenset({"conv_d"}), frozenset({"conv_a"})):
        one = replace(draft, keep_float=kept)
        found = correct_bias(one, CROPS, 1, CorrectBiasStep(), way)
        expected = correct_bias(one, CROPS, 1, CorrectBiasStep())
        assert way.known == known
        for ours, theirs in zip(found.model.weights, expected.model.weights, strict=True):
            assert ours.keys() == theirs.keys()
            for name, values in ours.items():
                np.testing.assert_array_equal(values, theirs[name])


def sums_of(x: Floats, y: Floats) -> Sums:
    """Sums of crops (N, P) of one channel, every position counted once."""
    terms = np.ones_like(x), x, y, x * x, x * y
    return Sums(*(term.astype(np.float64).sum(axis=1, keepdims=True) for term in terms))


def test_gain_and_offset_by_hand() -> None:
    x = np.random.default_rng(0).normal(size=(8, 50)).astype(np.float32)
    sums = sums_of(x, 1.25 * x + 3)
    np.testing.assert_allclose(sums.gains(1, about_mean=True), [1.25], rtol=1e-6)
    np.testing.assert_allclose(sums.offsets(np.array([1.25])), [3], rtol=1e-6)


@pytest.mark.parametrize(("factor", "expected"), [(-1.0, 0.5), (9.0, 2)], ids=["never negative", "never large"])
def test_gain_stays_near_one(factor: float, expected: float) -> None:
    x = np.random.default_rng(1).normal(size=(8, 50)).astype(np.float32)
    assert sums_of(x, factor * x).gains(1, about_mean=True) == expected


def test_gain_that_is_no_more_than_chance_is_left_out() -> None:
    rng = np.random.default_rng(1)
    gains: list[float] = []
    for _ in range(100):
        x = rng.normal(size=(8, 50)).astype(np.float32)
        gains.extend(sums_of(x, x + 3 * rng.normal(size=x.shape).astype(np.float32)).gains(1, about_mean=True))
    assert np.mean(np.array(gains) == 1) > 0.5
    assert sums_of(x[:1], 1.25 * x[:1]).gains(1, about_mean=True) == 1


def test_wrong_gain_is_put_right_in_the_scales_alone(tmp_path: Path) -> None:
    draft = scaled_draft()
    names = ("conv_out", "convdw_c")
    wrong = replace(
        draft,
        weight_scales={**draft.weight_scales, **{name: draft.weight_scales[name] * np.float32(0.8) for name in names}},
    )
    # Scales that are too small and the same integers: outputs that are a quarter too large.
    wrong = wrong.with_weights(
        {name: {"weight": draft.model.named(name)[1]["weight"] * np.float32(1.25)} for name in names}
    )
    corrected = correct_bias(wrong, CROPS, 2, CorrectBiasStep(gain=True))
    for name in names:
        np.testing.assert_allclose(corrected.weight_scales[name], draft.weight_scales[name], rtol=0.02)
        before, after = (quantize(one.model, one.table).named(name)[1]["weight"] for one in (wrong, corrected))
        np.testing.assert_array_equal(after, before)
    table = tmp_path / "table"
    corrected.table.write(table)
    read = CalibrationTable.read(table)
    assert all(np.array_equal(read.weight_scales[name], corrected.weight_scales[name]) for name in corrected.names)


# Rounding


def test_rounding_by_hand() -> None:
    """0.4 + 0.4 on inputs that are always equal: one is rounded up, so that the sum 0.8 becomes 1 and not 0."""
    weights = np.array([[0.4, 0.4]])
    integers = best_integers(weights, np.array([1.0]), np.ones((2, 2)), 127)
    assert integers.sum() == 1
    np.testing.assert_array_equal(best_integers(weights, np.array([1.0]), np.eye(2), 127), [[0, 0]])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_rounding_is_never_worse_than_the_nearest_and_a_local_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(20, 4)) @ rng.normal(size=(4, 4))
    moments = inputs.T @ inputs / 20
    weights, step = rng.normal(size=(1, 4)) * 3, np.array([0.7])
    curvature = moments + 0.01 * np.trace(moments) / 4 * np.eye(4)

    def error(integers: NDArray[Any]) -> float:
        rest = integers * 0.7 - weights[0]
        return float(rest @ curvature @ rest)

    nearest = np.clip(np.rint(weights[0] / 0.7), -5, 5)
    assert error(best_integers(weights, step, moments, 5)[0]) <= error(nearest) + 1e-12
    found = best_integers(weights, step, moments, 5, passes=1000)[0]
    assert np.abs(found).max() <= 5
    steps = [np.array(step) for step in product((-1, 0, 1), repeat=4) if sum(map(abs, step)) == 1]
    neighbours = [found + step for step in steps if np.abs(found + step).max() <= 5]
    assert error(found) <= min(map(error, neighbours)) + 1e-9


@pytest.mark.parametrize(
    ("shape", "stride", "group"),
    [((4, 3, 3, 3), 1, 1), ((4, 3, 3, 3), 2, 1), ((4, 3, 1, 1), 1, 1), ((3, 1, 3, 3), 2, 3)],
)
def test_columns_times_weights_are_the_convolution(shape: tuple[int, ...], stride: int, group: int) -> None:
    rng = np.random.default_rng(1)
    weight = rng.normal(size=shape).astype(np.float32)
    model = Builder().convolution("c", "a", "b", weight, stride=stride, group=group).model()
    values = rng.normal(size=(3, 9, 8)).astype(np.float32)
    (expected,) = LayerNetwork(model.layers[0], model.weights[0]).run([values])
    for positions in (np.arange(expected[0].size), np.array([7, 0, 3])):
        patches = columns(model.layers[0], values, positions)
        rows = weight.reshape(len(patches), -1, patches.shape[2])
        found = (rows @ patches.transpose(0, 2, 1)).reshape(len(expected), -1)
        np.testing.assert_allclose(found, by_channel(expected)[:, positions], rtol=1e-4, atol=1e-5)


def test_rounding_lessens_the_error_of_few_bits(tmp_path: Path) -> None:
    draft = scale_weights(small_draft(), CROPS, 1, WeightsStep(bits=6))
    draft = scale_activations(draft, CROPS, 1, ActivationsStep(method="absmax"))
    unseen = draw_crops(6, seed=7)
    wanted = NcnnNetwork(*small_network().write(tmp_path), "fp32", INPUT_SHAPE).forward(unseen)
    rounded = learn_rounding(draft, CROPS, 2, RoundStep())
    nearest, learned = (int8_outputs(one, tmp_path, unseen) for one in (draft, rounded))
    assert sqnr(wanted[0], learned[0]) > sqnr(wanted[0], nearest[0]) + 0.5


def test_rounded_weights_survive_ncnn2int8(tmp_path: Path) -> None:
    draft = learn_rounding(scaled_draft(), CROPS, 1, RoundStep())
    files = tmp_path / "f.param", tmp_path / "f.bin"
    draft.model.write(*files)
    draft.table.write(tmp_path / "table")
    int8 = tmp_path / "i.param", tmp_path / "i.bin"
    quantize_files(*files, tmp_path / "table", *int8)
    written = NcnnModel.read(*int8)
    for name in draft.names:
        weights = draft.model.named(name)[1]
        steps = weights["weight"].reshape(len(draft.weight_scales[name]), -1) * draft.weight_scales[name][:, np.newaxis]
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
        np.testing.assert_array_equal(written.named(name)[1]["weight"], np.rint(steps).ravel())


# Recipes


def test_layers_are_kept_in_float_by_type_and_by_name() -> None:
    draft = keep_float(small_draft(), CROPS, 1, KeepFloatStep(types=["ConvolutionDepthWise"], layers=["conv_out"]))
    assert draft.keep_float == {"convdw_c", "conv_out"}
    with pytest.raises(InputError, match="no layer conv_x"):
        keep_float(small_draft(), CROPS, 1, KeepFloatStep(layers=["conv_x"]))


def test_whole_recipe_is_better_than_ncnn2table(tmp_path: Path) -> None:
    unseen = draw_crops(6, seed=7)
    model, files = small_network().model(), small_network().write(tmp_path)
    wanted = NcnnNetwork(*files, "fp32", INPUT_SHAPE).forward(unseen)
    table = calibrate(*files, write_crops(tmp_path / "crops", np.stack(CROPS)), "kl")
    draft = Draft(model, model, table.weight_scales, {}, table.activation_scales)
    official = int8_outputs(draft, tmp_path, unseen)
    whole = int8_outputs(apply_recipe(RECIPE, model, CROPS, 2), tmp_path, unseen)
    assert sqnr(wanted[0], whole[0]) > sqnr(wanted[0], official[0]) + 1


def test_recipe_without_scales_is_refused() -> None:
    with pytest.raises(InputError, match="recipe: no step 'activations', which chooses scales"):
        apply_recipe([{"weights": {"bits": 8}}], small_network().model(), CROPS, 1)


def test_settings_that_are_left_out_have_the_documented_defaults() -> None:
    named: Steps = [
        {"weights": {"bits": 8, "scales": "absmax"}},
        {"activations": {"method": "percentile", "share": 0.9999, "crops": 64}},
    ]
    left_out: Steps = [{"weights": {}}, {"activations": {"method": "percentile"}}]
    short, long = (apply_recipe(recipe, small_network().model(), CROPS, 1) for recipe in (left_out, named))
    assert short.table.activation_scales == long.table.activation_scales
    for name in short.names:
        np.testing.assert_array_equal(short.weight_scales[name], long.weight_scales[name])


def test_step_looks_at_as_many_crops_as_its_setting_says() -> None:
    model = small_network().model()
    scales = [
        apply_recipe([{"weights": {}}, {"activations": {"method": "absmax", **few}}], model, crops, 1).activation_scales
        for few, crops in (({"crops": 2}, CROPS), ({}, CROPS[:2]), ({}, CROPS))
    ]
    assert scales[0] == scales[1]
    assert scales[0] != scales[2]


def test_draft_quantizes_a_layer_as_decided() -> None:
    draft = scaled_draft()
    layer, weights = draft.model.named("conv_f")
    expected = quantize_layer(layer, weights, draft.weight_scales["conv_f"], draft.activation_scales["conv_f"])
    np.testing.assert_array_equal(draft.quantized(layer)[1]["weight"], expected[1]["weight"])
