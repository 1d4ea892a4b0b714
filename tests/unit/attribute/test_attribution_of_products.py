"""A network with matrix products, from its recipe over the certificate's work and bounds to the source of its noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Floats, draw_crops, sqnr, write_crops
from tests.unit.pose_fixtures import SCALES, SPEC, draw_people
from tests.unit.product_fixtures import PRODUCTS, TOKENS, WIDTH, transformer_network

from posequant.attribute.attribute import attribute
from posequant.attribute.page import render
from posequant.attribute.pair import Pair
from posequant.base.errors import InputError
from posequant.ncnn_format.model import NcnnModel
from posequant.ncnn_format.overflow import product_bounds
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import LayerRecord, describe_layers, totals
from posequant.quantize.ncnn2int8 import quantize_product
from posequant.quantize.table import CalibrationTable
from posequant.recipe.draft import Draft
from posequant.recipe.recipe import apply_recipe

CROPS = draw_crops(4)
# Layers with weights, in the network's order.
WEIGHTED = ["patches", *PRODUCTS[:5], "head"]


def drafted(*steps: dict[str, dict[str, Any]]) -> Draft:
    return apply_recipe([*steps, *SCALES, {"correct-bias": {}}], transformer_network().model(), list(CROPS), 1)


@pytest.fixture(scope="module")
def draft() -> Draft:
    return drafted({"equalize": {}})


@pytest.fixture(scope="module")
def records(draft: Draft) -> dict[str, LayerRecord]:
    network = NcnnNetwork.of(draft.int8, "int8", INPUT_SHAPE)
    return {record.name: record for record in describe_layers(draft.int8, network)}


def outputs(model: NcnnModel, precision: str) -> Floats:
    return NcnnNetwork.of(model, precision, INPUT_SHAPE).forward(CROPS)[0]


def test_recipes_leave_products_to_the_plain_scheme(draft: Draft) -> None:
    assert draft.names == ["patches", "head"]
    assert {layer.name for layer in draft.int8.layers if layer.int8_term} == {*WEIGHTED, *PRODUCTS}
    for name in PRODUCTS[1:4]:
        expected = quantize_product(*draft.reference.named(name))[1]
        for slot, values in expected.items():
            if slot != "c":
                np.testing.assert_array_equal(draft.int8.named(name)[1][slot], values)


def test_recipe_keeps_products_in_float_by_type_and_name(tmp_path: Path) -> None:
    kept = drafted({"keep-float": {"types": ["MultiHeadAttention"], "layers": ["mix"]}})
    int8 = {layer.name for layer in kept.int8.layers if layer.int8_term}
    assert int8 == {*WEIGHTED, *PRODUCTS} - {"attention", "cross", "mix"}
    kept.table.write(tmp_path / "table")
    CalibrationTable.read(tmp_path / "table").check(kept.model.layers, kept.keep_float, tmp_path / "table")
    with pytest.raises(InputError, match="no layer split_tokens of the model can be quantized"):
        drafted({"keep-float": {"layers": ["split_tokens"]}})


def test_work_counts_products_by_hand(records: dict[str, LayerRecord]) -> None:
    assert list(records) == WEIGHTED
    square = WIDTH * WIDTH
    assert {name: record.macs for name, record in records.items()} == {
        "patches": TOKENS * 3 * WIDTH,
        # Query, key, value and output for each token; each token's query by each key, and its row by each value.
        "attention": 4 * TOKENS * square + 2 * TOKENS * TOKENS * WIDTH,
        "expand": TOKENS * 2 * square,
        "reduce": TOKENS * 2 * square,
        "mix": TOKENS * TOKENS * WIDTH,
        "cross": 4 * TOKENS * square + 2 * TOKENS * TOKENS * WIDTH,
        "head": 16 * 12 * 17 * WIDTH,
    }
    assert totals(list(records.values()))["int8"] == 1


def test_records_say_how_products_are_computed(records: dict[str, LayerRecord]) -> None:
    assert [records[name].kernel for name in PRODUCTS[:5]] == ["attention", *["matrix product"] * 3, "attention"]
    for name in PRODUCTS[:5]:
        record = records[name]
        assert (record.stored, record.bits, record.activation_scale) == ("int8", 8, None)
        assert record.weights
        assert max(map(abs, record.weights)) == 127


def test_work_in_float_is_not_counted_as_int8(draft: Draft) -> None:
    model = transformer_network().model()
    records = describe_layers(model, NcnnNetwork.of(model, "fp32", INPUT_SHAPE))
    assert [(record.name, record.bits) for record in records] == [(name, None) for name in WEIGHTED]
    assert totals(records)["int8"] == 0


def test_bounds_by_hand(records: dict[str, LayerRecord]) -> None:
    layer, weights = transformer_network().model().named("mix")
    layer, weights = quantize_product(layer, {"a": np.full(TOKENS * TOKENS, 0.5, np.float32)})
    found = {bound.quantity: bound.worst for bound in product_bounds(layer, weights)}
    assert found == {"int32 accumulator": TOKENS * 127 * 127, "int16 pair of products": 2 * 127 * 127}
    assert {bound.quantity: bound.worst for bound in records["cross"].bounds}["int32 query by key"] == 4 * 127 * 127
    assert not any(record.can_overflow for record in records.values())


class Attributed:
    """The files of both networks, and the attribution."""

    def __init__(self, draft: Draft, folder: Path) -> None:
        self.full, self.int8 = ((folder / f"{name}.param", folder / f"{name}.bin") for name in ("full", "int8"))
        draft.reference.write(*self.full)
        draft.int8.write(*self.int8)
        write_crops(folder / "crops", CROPS)
        draw_people(len(CROPS)).save(folder / "crops")
        SPEC.save(folder / "model.json")
        self.found = attribute(
            param=self.full[0],
            bin_=self.full[1],
            int8_param=self.int8[0],
            int8_bin=self.int8[1],
            model=folder / "model.json",
            crops=folder / "crops",
            variant="ncnn-int8",
            limit=len(CROPS),
        )


@pytest.fixture(scope="module")
def attributed(draft: Draft, tmp_path_factory: pytest.TempPathFactory) -> Attributed:
    return Attributed(draft, tmp_path_factory.mktemp("products"))


def test_each_product_has_its_share_of_noise(attributed: Attributed) -> None:
    layers = {layer["layer"]: layer for layer in attributed.found["layers"]}
    assert list(layers) == WEIGHTED
    for name in PRODUCTS[:5]:
        assert 20 < layers[name]["local_sqnr_db"] < 60, name
        assert 0 < layers[name]["noise_share"] < 1, name


def test_product_alone_is_a_network_with_no_other_in_int8(draft: Draft, attributed: Attributed) -> None:
    layers = {layer["layer"]: layer for layer in attributed.found["layers"]}
    for name in ("mix", "cross"):
        model = draft.reference
        pairs = [
            quantize_product(layer, weights) if layer.name == name else (layer, weights)
            for layer, weights in zip(model.layers, model.weights, strict=True)
        ]
        only = NcnnModel(*map(list, zip(*pairs, strict=True)))
        expected = sqnr(outputs(model, "fp32"), outputs(only, "int8"))
        assert layers[name]["sqnr_db"] == pytest.approx(expected, abs=0.2)


def test_steps_lead_from_float_to_int8(draft: Draft, attributed: Attributed) -> None:
    steps, side = attributed.found["waterfall"], attributed.found["activations_only"]
    assert [step["step"] for step in steps] == ["float", "weights in 8 bits", "INT8 network"]
    expected = sqnr(outputs(draft.reference, "fp32"), outputs(draft.int8, "int8"))
    assert steps[2]["sqnr_db"] == pytest.approx(expected, abs=1e-6)
    assert steps[2]["sqnr_db"] < min(steps[1]["sqnr_db"], side["sqnr_db"])


def test_page_names_products(attributed: Attributed) -> None:
    page = render(attributed.found, {})
    assert "| matrix product" in page
    assert "| attention" in page


def test_inputs_are_rounded_as_they_come(attributed: Attributed) -> None:
    pair = Pair.read(*attributed.full, *attributed.int8)
    values = np.array([[127.0, 0.4], [12.7, 0.06]], np.float32)
    # A first factor by rows; a second one, like what attention gets, as a whole.
    np.testing.assert_allclose(pair.rounded_input("expand", values), np.array([[127, 0], [12.7, 0.1]]), atol=1e-5)
    for name in ("mix", "cross"):
        np.testing.assert_allclose(pair.rounded_input(name, values), [[127, 0], [13, 0]], atol=1e-5)
    np.testing.assert_allclose(pair.rounded_input("similarity", values, 1), [[127, 0], [13, 0]], atol=1e-5)


def test_weights_of_another_network_are_refused(attributed: Attributed, tmp_path: Path) -> None:
    other = transformer_network(seed=1).write(tmp_path)
    with pytest.raises(InputError, match=r"the weights of layer .* are not those of"):
        Pair.read(*other, *attributed.int8)
