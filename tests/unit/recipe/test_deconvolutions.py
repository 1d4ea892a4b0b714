"""Deconvolutions as convolutions: against PyTorch's transposed convolution, and the real INT8 network."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Builder, Floats, draw_crops, sqnr, write_crops
from tests.unit.pose_fixtures import SPEC, draw_people

from posequant.attribute.attribute import attribute
from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer, NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import arithmetic, describe_layers, totals
from posequant.quantize.ncnn2int8 import quantize, quantize_files
from posequant.recipe.deconvolutions import _require_equal, split, split_deconvolutions
from posequant.recipe.draft import Draft
from posequant.recipe.judge import Judge
from posequant.recipe.recipe import apply_recipe, apply_recipe_to_files
from posequant.workflow.settings.recipe import Recipe, SplitDeconvolutionsStep, Steps

RECIPE: Steps = [{"split-deconvolutions": {}}, {"weights": {}}, {"activations": {"method": "absmax"}}]


def draw(*shape: int, seed: int = 0, scale: float = 1) -> Floats:
    return np.random.default_rng(seed).normal(size=shape, scale=scale).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A deconvolution of 4 channels; pairs are along the height and along the width, cuts before and after."""

    size: tuple[int, int] = (3, 5)
    kernel: tuple[int, int] = (4, 4)
    stride: int = 2
    cuts: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1))
    longer: tuple[int, int] = (0, 0)
    depthwise: bool = False
    bias: bool = True
    relu: bool = False

    @property
    def output(self) -> tuple[int, ...]:
        return tuple(
            (size - 1) * self.stride + kernel + longer - sum(cut)
            for size, kernel, longer, cut in zip(self.size, self.kernel, self.longer, self.cuts, strict=True)
        )

    @property
    def can_be_split(self) -> bool:
        """All phases are of one size, and none begins behind its input's first or ends before its last place."""
        reach = [kernel - self.stride for kernel in self.kernel]
        fits = [
            before <= most and after <= most + longer
            for (before, after), most, longer in zip(self.cuts, reach, self.longer, strict=True)
        ]
        return all(fits) and not any(places % self.stride for places in self.output)

    @property
    def weight(self) -> Floats:
        """In PyTorch's order: input channels, output channels of a group, height, width."""
        return draw(4, 1 if self.depthwise else 6, *self.kernel, seed=1)

    @property
    def channels(self) -> int:
        return 4 if self.depthwise else 6

    def network(self, **params: Any) -> NcnnModel:
        (top, bottom), (left, right) = self.cuts
        weight = self.weight if self.depthwise else self.weight.transpose(1, 0, 2, 3)
        values = {
            **{0: self.channels, 1: self.kernel[1], 11: self.kernel[0], 3: self.stride, 5: int(self.bias)},
            **{6: weight.size, 14: top, 16: bottom, 4: left, 15: right, 19: self.longer[0], 18: self.longer[1]},
            **({7: 4} if self.depthwise else {}),
            **({9: 1} if self.relu else {}),
            **{int(key[1:]): value for key, value in params.items()},
        }
        weights = {"weight": weight.ravel()} | ({"bias": draw(self.channels, seed=2)} if self.bias else {})
        type_ = "DeconvolutionDepthWise" if self.depthwise else "Deconvolution"
        return Builder().add("Input", "in0", "", "in0").add(type_, "d", "in0", "out0", values, **weights).model()

    @property
    def input(self) -> Floats:
        return draw(4, *self.size, seed=3)

    def expected(self, values: Floats, weight: Floats) -> Floats:
        """By PyTorch, which cuts off the same on both sides only: so nothing there, and the rest here."""
        whole = torch.nn.functional.conv_transpose2d(
            torch.from_numpy(values[np.newaxis]).double(),
            torch.from_numpy(weight).double(),
            torch.from_numpy(draw(self.channels, seed=2)).double() if self.bias else None,
            stride=self.stride,
            output_padding=self.longer,
            groups=4 if self.depthwise else 1,
        )[0].numpy()
        (top, bottom), (left, right) = self.cuts
        cut: Floats = whole[:, top : whole.shape[1] - bottom, left : whole.shape[2] - right].astype(np.float32)
        return np.maximum(cut, 0) if self.relu else cut


def run(model: NcnnModel, values: Floats, precision: str = "fp32") -> Floats:
    found: Floats = NcnnNetwork.of(model, precision, values.shape).forward(values[np.newaxis])[0][0]
    return found


@st.composite
def cases(draw: st.DrawFn) -> Case:
    stride = draw(st.integers(1, 3))
    kernel = draw(st.tuples(*[st.integers(1, 5)] * 2))
    cut = st.tuples(*[st.integers(0, 3)] * 2)
    case = Case(
        size=draw(st.tuples(*[st.integers(2, 6)] * 2)),
        kernel=kernel,
        stride=stride,
        cuts=draw(st.tuples(cut, cut)),
        longer=draw(st.tuples(*[st.integers(0, stride - 1)] * 2)),
        depthwise=draw(st.booleans()),
        bias=draw(st.booleans()),
        relu=draw(st.booleans()),
    )
    return case if min(case.output) > 0 else Case(stride=stride, cuts=((0, 0), (0, 0)))


@given(case=cases())
@settings(max_examples=40, deadline=None)
@example(Case())
@example(Case(kernel=(3, 3), longer=(1, 1)))
@example(Case(kernel=(2, 2), cuts=((0, 0), (0, 0)), relu=True))
@example(Case(kernel=(5, 3), stride=1, cuts=((0, 4), (1, 1))))
@example(Case(kernel=(4, 2), cuts=((0, 2), (0, 0)), depthwise=True))
def test_split_deconvolution_is_pytorchs(case: Case) -> None:
    model, left = split(case.network(), {"d": (4, *case.size)})
    assert (not left) == case.can_be_split
    found = run(model, case.input)
    expected = case.expected(case.input, case.weight)
    # Where the cut leaves nothing that the kernel reaches, both are zero.
    assert sqnr(expected, found) > 110 if expected.any() else not found.any()
    if not left:
        assert {layer.type for layer in model.layers} <= {
            *("Input", "Split", "Concat", "PixelShuffle"),
            "ConvolutionDepthWise" if case.depthwise else "Convolution",
        }


@given(case=cases().filter(lambda case: case.can_be_split))
@settings(max_examples=12, deadline=None)
def test_work_is_the_same_where_the_output_is_as_many_times_as_large_as_the_stride(case: Case) -> None:
    def work(model: NcnnModel) -> int:
        network = NcnnNetwork.of(model, "fp32", (4, *case.size))
        return int(totals(describe_layers(model, network))["macs"])

    places = np.prod(case.output) / np.prod(case.size) / case.stride**2
    model = case.network()
    assert work(split(model, {"d": (4, *case.size)})[0]) == pytest.approx(work(model) * places)


@pytest.mark.parametrize("mark", [-233, -234])
@pytest.mark.parametrize("kernel", [4, 3])
def test_padding_that_follows_from_the_size_of_the_output(mark: int, kernel: int) -> None:
    case = Case(kernel=(kernel, kernel))
    network = case.network(_4=mark, _14=mark, _15=mark, _16=mark, _20=10, _21=6)
    model, left = split(network, {"d": (4, 3, 5)})
    assert not left
    assert sqnr(run(network, case.input), run(model, case.input)) > 110


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Case(kernel=(2, 4), stride=3, cuts=((0, 0), (0, 0))).network(), "its output has 8 rows or columns"),
        (Case(kernel=(1, 1), cuts=((0, 0), (0, 0)), longer=(1, 1)).network(), "its kernel of 1 is smaller than"),
        (Case(kernel=(2, 2)).network(), "its padding of 1 and 1 leaves out part of its input"),
        (Case().network(_13=1), "its strides are 1x2"),
        (Case().network(_2=2), "its kernel is dilated by 2x2"),
        (Case().network(_15=-233), "its padding is given in part"),
    ],
)
def test_what_cannot_be_split_stays_and_is_named(
    network: NcnnModel, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = Draft.of(network)
    assert split_deconvolutions(draft, [draw(4, 3, 5)], 1, SplitDeconvolutionsStep()) is draft
    assert f"notice: deconvolution d stays as it is: {reason}" in capsys.readouterr().err


def head(*, depthwise: bool = False) -> NcnnModel:
    """A convolution; on its output two deconvolutions of 4x4 and a convolution, and beside them another one."""
    first = Case(depthwise=depthwise)
    weight = first.weight if depthwise else draw(6, 4, 4, 4, seed=1, scale=0.125)
    between = weight.shape[0]
    shape = {1: 4, 3: 2, 4: 1, 5: 1, 9: 1}
    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", draw(4, 3, 3, 3, seed=4, scale=0.2), draw(4, seed=5), relu=True)
        .add("Split", "copies", "a", "a0 a1")
        .add(
            "DeconvolutionDepthWise" if depthwise else "Deconvolution",
            "d",
            "a0",
            "b",
            {0: between, **shape, 6: weight.size} | ({7: 4} if depthwise else {}),
            weight=weight.ravel(),
            bias=draw(between, seed=6),
        )
        .add(
            "Deconvolution",
            "e",
            "b",
            "c",
            {0: 5, **shape, 6: 5 * between * 16},
            weight=draw(5 * between * 16, seed=7, scale=0.125),
            bias=draw(5, seed=8),
        )
        .convolution("conv_b", "c", "out0", draw(3, 5, 1, 1, seed=9), draw(3, seed=10))
        .convolution("conv_c", "a1", "out1", draw(3, 4, 1, 1, seed=11))
        .model()
    )


CROPS = list(draw(4, 3, 8, 6, seed=12))


def types(model: NcnnModel) -> list[str]:
    return [layer.type for layer in model.layers]


def test_whole_network_is_in_int8(capsys: pytest.CaptureFixture[str]) -> None:
    draft = apply_recipe(RECIPE, head(), CROPS, 1)
    assert "2 deconvolutions are convolutions now. Work that can be in INT8: 13.5% before, 100.0% now" in (
        capsys.readouterr().err
    )
    model = quantize(draft.model, draft.table)
    network = NcnnNetwork.of(model, "int8", (3, 8, 6))
    assert totals(describe_layers(model, network))["int8"] == 1
    crops = np.stack(CROPS)
    for full, int8 in zip(
        NcnnNetwork.of(head(), "fp32", (3, 8, 6)).forward(crops), network.forward(crops), strict=True
    ):
        assert sqnr(full, int8) > 30


def test_depthwise_deconvolutions_are_split_where_it_is_asked_for() -> None:
    network = Draft.of(head(depthwise=True))
    left = split_deconvolutions(network, CROPS, 1, SplitDeconvolutionsStep())
    both = split_deconvolutions(network, CROPS, 1, SplitDeconvolutionsStep(depthwise=True))
    assert (types(left.model).count("DeconvolutionDepthWise"), types(left.model).count("PixelShuffle")) == (1, 1)
    assert (types(both.model).count("ConvolutionDepthWise"), types(both.model).count("PixelShuffle")) == (4, 2)


def test_the_split_before_a_deconvolution_is_widened() -> None:
    """ncnn hands on INT8 through one Split, not through two."""
    draft = split_deconvolutions(Draft.of(head()), CROPS, 1, SplitDeconvolutionsStep())
    copies = draft.model.named("copies")[0]
    assert copies.tops[0] == "a1"
    assert len(copies.tops) == 5
    scaled = apply_recipe(RECIPE[1:], draft.model, CROPS, 1)
    assert quantize(scaled.model, scaled.table).named("conv_a")[0].int8_term > 100


def test_int8_phases_are_the_integer_deconvolution() -> None:
    case = Case(size=(8, 6))
    crop = case.input
    draft = apply_recipe(RECIPE, case.network(), [crop], 1)
    int8 = quantize(draft.model, draft.table)
    scale = draft.activation_scales["d_phase_0_0"]
    # A deconvolution of kernel 4, stride 2, padding 1: even places are made by weights 3 and 1, odd ones by 2 and 0.
    weight = np.zeros((6, 4, 4, 4), np.float32)
    for row, column in itertools.product(range(2), repeat=2):
        of_phase = int8.named(f"d_phase_{row}_{column}")[1]
        integers = of_phase["weight"].reshape(6, 4, 2, 2) / of_phase["weight_scales"].reshape(6, 1, 1, 1)
        weight[:, :, [3 - row, 1 - row], :][:, :, :, [3 - column, 1 - column]] = 0
        weight[np.ix_(range(6), range(4), [3 - row, 1 - row], [3 - column, 1 - column])] = integers
    seen = np.clip(np.sign(crop) * np.floor(np.abs(crop * scale) + 0.5), -127, 127) / scale
    expected = case.expected(seen.astype(np.float32), np.ascontiguousarray(weight.transpose(1, 0, 2, 3)))
    assert sqnr(expected, run(int8, crop, "int8")) > 100


def test_convolutions_that_are_not_the_deconvolution_are_refused() -> None:
    case = Case()
    model = split(case.network(), {"d": (4, 3, 5)})[0]
    model.weights[3] = {**model.weights[3], "weight": model.weights[3]["weight"] * np.float32(1.001)}
    old, new = (NcnnNetwork.of(network, "fp32", (4, 3, 5)) for network in (case.network(), model))
    layer = Layer("Deconvolution", "d", ("in0",), ("out0",), {})
    with pytest.raises(AssertionError, match=r"layer d: its convolutions are .* dB from the deconvolution"):
        _require_equal(old, new, [layer], case.input)


def test_network_without_deconvolutions_stays() -> None:
    model = Builder().add("Input", "in0", "", "in0").convolution("c", "in0", "out0", draw(4, 3, 1, 1)).model()
    draft = Draft.of(model)
    assert split_deconvolutions(draft, CROPS, 1, SplitDeconvolutionsStep()) is draft


def test_the_step_comes_first() -> None:
    Recipe.of([{"keep-float": {}}, *RECIPE])
    with pytest.raises(InputError, match="'split-deconvolutions' must come before all steps but 'keep-float'"):
        Recipe.of([*RECIPE[1:], RECIPE[0]])


def pose_head() -> NcnnModel:
    """A network from crops of `SPEC` to 17 heatmaps of their size; a deconvolution makes up for a stride."""
    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", draw(8, 3, 3, 3, scale=0.2), draw(8, seed=1), stride=2, relu=True)
        .add(
            *("Deconvolution", "d", "a", "b", {0: 8, 1: 4, 3: 2, 4: 1, 5: 1, 6: 8 * 8 * 16, 9: 1}),
            weight=draw(8 * 8 * 16, seed=2, scale=0.2),
            bias=draw(8, seed=3),
        )
        .convolution("conv_b", "b", "out0", draw(17, 8, 1, 1, seed=4), draw(17, seed=5))
        .model()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a recipe writes of a network with a deconvolution, the INT8 network, and what they were made from."""
    folder = tmp_path_factory.mktemp("recipe")
    crops = draw_crops(8)
    SPEC.save(folder / "model.json")
    pose_head().write(folder / "full.param", folder / "full.bin")
    write_crops(folder / "crops", crops)
    draw_people(len(crops)).save(folder / "crops")
    record = apply_recipe_to_files(
        [*RECIPE, {"budget": {"oks_loss": 0.001}}],
        model=folder / "model.json",
        param=folder / "full.param",
        bin_=folder / "full.bin",
        crops=folder / "crops",
        threads=1,
        out=(folder / "prepared.param", folder / "prepared.bin"),
        table=folder / "table",
        reference=(folder / "reference.param", folder / "reference.bin"),
    )
    assert record["rungs"][0]["step"].startswith("split-deconvolutions; weights")
    names = [f"{stem}.{ending}" for stem in ("prepared", "int8") for ending in ("param", "bin")]
    param, bin_, int8_param, int8_bin = (folder / name for name in names)
    quantize_files(param, bin_, folder / "table", int8_param, int8_bin, keep_float=record["keep_float"])
    return folder


PHASES = ["d_phase_0_0", "d_phase_0_1", "d_phase_1_0", "d_phase_1_1"]


def test_layers_and_work_of_a_certificate_are_those_of_the_rewritten_network(folder: Path) -> None:
    files = folder / "int8.param", folder / "int8.bin"
    crops = draw_crops(2)
    network = NcnnNetwork(*files, "int8", INPUT_SHAPE)
    said = arithmetic(*files, network, crops, network.forward(crops))
    kernels = {layer["name"]: (layer["kernel"], layer["macs"]) for layer in said["layers"]}
    assert kernels == {
        "conv_a": ("3x3 stride 2", 8 * 6 * 8 * 3 * 9),
        **dict.fromkeys(PHASES, ("2x2 stride 1", 8 * 6 * 8 * 8 * 4)),
        "conv_b": ("1x1", 16 * 12 * 17 * 8),
    }
    full = NcnnNetwork.of(pose_head(), "fp32", INPUT_SHAPE)
    assert said["work"]["macs"] == totals(describe_layers(pose_head(), full))["macs"]
    assert said["overflow"]["winograd_on_and_off"]["equal"]


def test_attribution_compares_with_the_float_network_of_the_same_layers(folder: Path) -> None:
    found = attribute(
        param=folder / "reference.param",
        bin_=folder / "reference.bin",
        int8_param=folder / "int8.param",
        int8_bin=folder / "int8.bin",
        model=folder / "model.json",
        crops=folder / "crops",
        variant="v",
        limit=2,
    )
    assert [layer["layer"] for layer in found["layers"]] == ["conv_a", *PHASES, "conv_b"]
    assert sum(layer["macs_share"] for layer in found["layers"]) == pytest.approx(1)


def test_a_budget_knows_the_work_of_the_layers_that_a_step_wrote() -> None:
    judge = Judge(SPEC, pose_head(), draw_crops(4), draw_people(4), 1)
    work = sum(judge.macs(Draft.of(pose_head())).values())
    draft = apply_recipe(RECIPE, pose_head(), list(draw_crops(4)), 1, judge)
    found = judge.macs(draft)
    assert set(found) == set(draft.names) == {"conv_a", *PHASES, "conv_b"}
    assert sum(found.values()) == work
