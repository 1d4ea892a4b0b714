"""Where the error of an INT8 network comes from: each layer alone and the steps from float to INT8, done over."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Floats, draw_crops, sqnr, write_crops
from tests.unit.pose_fixtures import SCALES, SPEC, draw_people, pose_network

from posequant.attribute.attribute import attribute
from posequant.attribute.figure import draw
from posequant.attribute.page import half_of_noise, render, to_table, with_times, worst_first
from posequant.attribute.pair import Pair
from posequant.attribute.times import measure_times
from posequant.base.errors import InputError
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize
from posequant.recipe.draft import Draft
from posequant.recipe.recipe import apply_recipe
from posequant.workflow.settings.recipe import Steps

CROPS = draw_crops(6)


class Files:
    """A float network, the INT8 one made of it, and what else `attribute` reads."""

    def __init__(self, folder: Path, bits: int = 6, steps: Steps = ()) -> None:
        self.folder = folder
        recipe = [{"weights": {"bits": bits, "scales": "absmax"}}, *SCALES[1:], *steps]
        self.draft = apply_recipe(recipe, pose_network(), list(CROPS), 1)
        self.draft.reference.write(*self.full)
        quantize(self.draft.model, self.draft.table).write(*self.int8)
        write_crops(folder / "crops", CROPS)
        draw_people(len(CROPS)).save(folder / "crops")
        SPEC.save(folder / "model.json")

    @property
    def full(self) -> tuple[Path, Path]:
        return self.folder / "full.param", self.folder / "full.bin"

    @property
    def int8(self) -> tuple[Path, Path]:
        return self.folder / "int8.param", self.folder / "int8.bin"

    def attribute(self, threads: int = 1, limit: int = 16) -> dict[str, Any]:
        return attribute(
            param=self.full[0],
            bin_=self.full[1],
            int8_param=self.int8[0],
            int8_bin=self.int8[1],
            model=self.folder / "model.json",
            crops=self.folder / "crops",
            variant="ncnn-int8",
            limit=limit,
            threads=threads,
        )

    def outputs(self, draft: Draft) -> Floats:
        """What the INT8 network of a draft gives."""
        files = self.folder / "other.param", self.folder / "other.bin"
        quantize(draft.model, draft.table).write(*files)
        return NcnnNetwork(*files, "int8", INPUT_SHAPE).forward(CROPS)[0]

    def float_outputs(self) -> Floats:
        return NcnnNetwork(*self.full, "fp32", INPUT_SHAPE).forward(CROPS)[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("attribution"))


@pytest.fixture(scope="module")
def found(files: Files) -> dict[str, Any]:
    return files.attribute()


@pytest.fixture(scope="module")
def times(files: Files) -> dict[str, Any]:
    return measure_times(
        full=files.full, int8=files.int8, model=files.folder / "model.json", variant="ncnn-int8", crops=CROPS,
        rounds=5, seconds=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def timed(found: dict[str, Any], times: dict[str, Any]) -> dict[str, Any]:
    return with_times(found, times)


def test_layer_alone_is_a_network_with_no_other_in_int8(files: Files, found: dict[str, Any]) -> None:
    assert [row["layer"] for row in found["layers"]] == files.draft.names
    for row in found["layers"]:
        only = replace(files.draft, keep_float=frozenset(files.draft.names) - {row["layer"]})
        expected = sqnr(files.float_outputs(), files.outputs(only))
        # The other layers of that file have weights in half precision.
        assert row["sqnr_db"] == pytest.approx(expected, abs=0.2), row["layer"]


def test_last_step_is_the_int8_network_to_the_bit(files: Files, found: dict[str, Any]) -> None:
    steps = found["waterfall"]
    assert [step["step"] for step in steps] == [
        *("float", "weights in 8 bits", "weights as in the artifact", "INT8 network")
    ]
    assert steps[-1]["sqnr_db"] == pytest.approx(sqnr(files.float_outputs(), files.outputs(files.draft)), abs=1e-9)
    assert steps[0]["noise"] == 0


def test_weights_alone_are_those_of_a_float_network_with_rounded_weights(files: Files, found: dict[str, Any]) -> None:
    weights = {}
    for name in files.draft.names:
        values, scales = files.draft.model.named(name)[1]["weight"], files.draft.weight_scales[name][:, np.newaxis]
        weights[name] = {
            "weight": (np.rint(values.reshape(len(scales), -1) * scales) / scales).astype(np.float32).ravel()
        }
    rounded = files.draft.with_weights(weights)
    paths = files.folder / "w.param", files.folder / "w.bin"
    rounded.model.write(*paths)
    outputs = NcnnNetwork(*paths, "fp32", INPUT_SHAPE).forward(CROPS)[0]
    assert found["waterfall"][2]["sqnr_db"] == pytest.approx(sqnr(files.float_outputs(), outputs), abs=0.01)


def test_eight_bits_are_a_step_of_their_own_only_where_the_artifact_has_fewer(tmp_path: Path) -> None:
    steps = Files(tmp_path, bits=8).attribute()["waterfall"]
    assert [step["step"] for step in steps] == ["float", "weights in 8 bits", "INT8 network"]


def test_a_network_that_steps_have_rewritten_is_compared_in_its_own_form(tmp_path: Path) -> None:
    files = Files(tmp_path, bits=8, steps=[{"center": {}}])
    assert files.draft.reference.layers != pose_network().layers
    found = files.attribute()
    original = NcnnNetwork.of(pose_network(), "fp32", INPUT_SHAPE).forward(CROPS)[0]
    assert found["waterfall"][-1]["sqnr_db"] == pytest.approx(sqnr(original, files.outputs(files.draft)), abs=0.01)
    assert all(row["local_sqnr_db"] > 20 for row in found["layers"])


def test_rounded_input_by_hand(files: Files) -> None:
    pair = Pair.read(*files.full, *files.int8)
    scale = files.draft.activation_scales["conv_c"]
    values = np.array([[[0.4, 0.6, -1.5, 1000.0]]], np.float32) / scale
    expected = np.array([[[0, 1, -2, 127]]]) / scale
    np.testing.assert_allclose(pair.rounded_input("conv_c", values), expected, rtol=1e-5)


def test_shares_add_up(found: dict[str, Any]) -> None:
    assert sum(row["noise_share"] for row in found["layers"]) == pytest.approx(1)
    assert sum(row["macs_share"] for row in found["layers"]) == pytest.approx(1)


def test_threads_change_nothing(files: Files, found: dict[str, Any]) -> None:
    assert files.attribute(threads=3) == found


def test_limit_is_the_number_of_crops(files: Files) -> None:
    assert files.attribute(limit=2)["crops"] == 2
    with pytest.raises(InputError, match="asked for 0 crops"):
        files.attribute(limit=0)


def test_networks_whose_channels_and_layers_a_recipe_changed_are_attributed(tmp_path: Path) -> None:
    """In the float network that the recipe writes, each layer is the INT8 network's."""
    draft = apply_recipe([{"equalize": {"strength": 0.5}}, *SCALES], pose_network(), list(CROPS), 1)
    files = tmp_path / "f.param", tmp_path / "f.bin", tmp_path / "q.param", tmp_path / "q.bin"
    quantize(draft.model, draft.table).write(*files[2:])
    pose_network().write(*files[:2])
    with pytest.raises(InputError, match="where a recipe made it, the recipe's reference"):
        Pair.read(*files)
    draft.reference.write(*files[:2])
    pair = Pair.read(*files)
    for name in draft.names:
        full, dequantized = pair.full.named(name), pair.dequantized(name)
        assert dequantized[0] == full[0]
        assert sqnr(full[1]["weight"], dequantized[1]["weight"]) > 35


def test_networks_that_do_not_belong_together_are_refused(files: Files, tmp_path: Path) -> None:
    other = tmp_path / "o.param", tmp_path / "o.bin"
    model = pose_network()
    weights = {"conv_c": {"weight": -model.named("conv_c")[1]["weight"]}}
    Draft.of(model).with_weights(weights).model.write(*other)
    with pytest.raises(InputError, match=r"weights of layer conv_c are not those of .*o\.param"):
        Pair.read(*other, *files.int8)
    with pytest.raises(InputError, match=r"conv_a is INT8\. Give the float model"):
        Pair.read(*files.int8, *files.int8)
    with pytest.raises(InputError, match="no layer is marked as INT8"):
        Pair.read(*files.full, *files.full)


def test_page_and_table(timed: dict[str, Any]) -> None:
    drawings = draw(timed)
    page = render(timed, {f"{drawing.name}.svg": drawing for drawing in drawings})
    worst = worst_first(timed["layers"])
    assert [row["noise"] for row in worst] == sorted((row["noise"] for row in worst), reverse=True)
    assert f"| {worst[0]['layer']} " in page
    for drawing in drawings:
        assert drawing.caption
        assert f"![{drawing.title}]({drawing.name}.svg)\n\n{drawing.caption}\n" in page
    for part in timed["times"]["parts"]:
        assert f"| {part['part']} " in page
    assert sum(row["noise_share"] for row in half_of_noise(timed["layers"])) >= 0.5
    assert to_table(timed)["layer"].tolist() == [row["layer"] for row in timed["layers"]]
    assert (to_table(timed)[["float_ms", "int8_ms"]] > 0).all(axis=None)


def test_times_of_other_files_are_refused(found: dict[str, Any], times: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"the times of ncnn-int8, .* are those of other files"):
        with_times(found, times | {"sha256": times["sha256"] | {"int8": {}}})


def test_pictures_show_the_steps_the_layers_and_the_times(timed: dict[str, Any]) -> None:
    steps, layers, parts = draw(timed)
    *waterfall, side = steps.figure.axes[0].patches
    ends = [bar.get_x() + bar.get_width() for bar in waterfall if isinstance(bar, Rectangle)]
    assert ends == pytest.approx([100 * step["noise"] for step in timed["waterfall"]])
    assert isinstance(side, Rectangle)
    assert (side.get_x(), side.get_width()) == pytest.approx((0, 100 * timed["activations_only"]["noise"]))
    heights = [
        [bar.get_height() for bar in panel.patches if isinstance(bar, Rectangle)] for panel in layers.figure.axes
    ]
    shown = zip(heights, ("noise", "oks_loss", "macs_share", "int8_ms"), (100, 1, 100, 1), strict=True)
    for of_panel, key, factor in shown:
        assert of_panel == pytest.approx([factor * (layer[key] or 0) for layer in timed["layers"]])
    names = [label.get_text() for label in layers.figure.axes[-1].get_xticklabels()]
    assert names == [layer["layer"] for layer in timed["layers"]]
    widths = [bar.get_width() for bar in parts.figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert widths == pytest.approx([part[key] for key in ("float_ms", "int8_ms") for part in timed["times"]["parts"]])


def test_of_many_layers_the_noisiest_are_named(timed: dict[str, Any]) -> None:
    layers = [
        {**timed["layers"][0], "layer": f"layer {place}", "noise": 0.01 * (place % 100 == 7)} for place in range(300)
    ]
    _, drawing, _ = draw({**timed, "layers": layers})
    names = [label.get_text() for label in drawing.figure.axes[-1].get_xticklabels()]
    assert {"layer 7", "layer 107", "layer 207"} <= set(names)
    assert len(names) <= 12
    assert "Only some" in drawing.caption
