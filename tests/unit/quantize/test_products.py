"""Matrix products in INT8: files as ncnn reads and the official tool writes them, arithmetic beside numpy's."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Builder, Floats, draw_crops, sqnr, write_crops
from tests.unit.product_fixtures import PRODUCTS, transformer_network

from posequant.base.errors import InputError
from posequant.ncnn_format.model import Layer, NcnnModel, weight_slots
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.ncnn2int8 import quantize, quantize_files, quantize_product
from posequant.quantize.ncnn2table import write_table
from posequant.quantize.table import CalibrationTable, attention_scales
from posequant.quantize.weights import INT8_LIMIT, product_scales, products, quantizable, weight_scales

# Of the files that the official ncnn2int8 made of `transformer_network` by the table of `official_table` (ncnn's
# sources of 2026-07-22).
OFFICIAL_PARAM = "ece9355191fe07493d0ccae2f00ae264b1e4ac33800c301b0716f169348beffd"
OFFICIAL_BIN = "7f00f2ac285bb5a979ffde2dd30ac1e195090323db5496758b90854b876875d6"

INT8 = {
    "Gemm": {4: 1, 5: 1, 6: 1, 7: 2, 8: 5, 9: 3, 10: 4, 18: 2},
    "MultiHeadAttention": {0: 6, 1: 2, 2: 24, 3: 5, 4: 3, 18: 2},
}


def official_table(model: NcnnModel) -> CalibrationTable:
    weights = {
        layer.name: weight_scales(layer, model.named(layer.name)[1]["weight"], "kl")
        for layer in quantizable(model.layers)
    }
    return CalibrationTable(weights, {name: np.float32(40) for name in weights}, attention_scales(model, ()))


def out(folder: Path) -> tuple[Path, Path]:
    return folder / "int8.param", folder / "int8.bin"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("products")
    write_crops(folder / "crops", draw_crops(8))
    write_table(folder / "table", *transformer_network().write(folder), folder / "crops", "kl")
    return folder / "table"


@pytest.mark.parametrize("type_", INT8)
def test_int8_weights_are_as_long_as_ncnn_reads_them(type_: str, tmp_path: Path) -> None:
    layer = Layer(type_, "it", ("in0",), ("out0",), {key: str(value) for key, value in INT8[type_].items()})
    builder = Builder().add("Input", "in0", "", "in0")
    weights = {
        slot.name: np.ones(slot.size, np.int8 if slot.tagged and slot.name != "c" else np.float32)
        for slot in weight_slots(layer)
    }
    param, bin_ = builder.add(type_, "it", "in0", "out0", dict(INT8[type_]), **weights).write(tmp_path)

    def load() -> int:
        net = ncnn.Net()
        assert net.load_param(str(param)) == 0
        return int(net.load_model(str(bin_)))

    assert load() == 0
    read = NcnnModel.read(param, bin_).named("it")[1]
    assert {name: values.dtype for name, values in read.items()} == {name: one.dtype for name, one in weights.items()}
    bin_.write_bytes(bin_.read_bytes()[:-4])
    with pytest.raises(InputError, match="cut off in the weights of layer it"):
        NcnnModel.read(param, bin_)


def test_float_weights_under_an_int8_mark_are_refused(tmp_path: Path) -> None:
    builder = transformer_network()
    builder.layers[8] = replace(builder.layers[8], params={**builder.layers[8].params, 18: "2"})
    int8 = quantize_product(*transformer_network().model().named("expand"))[1]
    builder.weights[8] = {**int8, "b": builder.weights[8]["b"]}
    with pytest.raises(InputError, match=r"weights of layer expand are float32, but .* the layer is marked as INT8"):
        NcnnModel.read(*builder.write(tmp_path))


def test_weights_in_blocks_are_refused() -> None:
    layer = Layer("Gemm", "it", ("a",), ("b",), {5: "1", 8: "4", 9: "64", 18: "400"})
    with pytest.raises(InputError, match="layer it: weights quantized in blocks"):
        weight_slots(layer)


def test_files_are_those_of_the_official_tool(tmp_path: Path) -> None:
    builder = transformer_network()
    official_table(builder.model()).write(tmp_path / "table")
    quantize_files(*builder.write(tmp_path), tmp_path / "table", *out(tmp_path))
    found = [sha256(path.read_bytes()).hexdigest() for path in out(tmp_path)]
    assert found == [OFFICIAL_PARAM, OFFICIAL_BIN]


def test_table_has_four_lines_of_attention_and_none_of_a_gemm(table: Path, tmp_path: Path) -> None:
    names = [line.split()[0] for line in table.read_text().splitlines()]
    of_attention = [f"{name}_param_{place}" for name in ("attention", "cross") for place in range(4)]
    assert names == ["patches_param_0", "head_param_0", "patches", "head", *of_attention]
    CalibrationTable.read(table).write(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == table.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cross_param_2 ", "cross_param_0 ", "cross_param_0 occurs twice"),
        ("cross_param_3 ", "cross_param_3 1.0 ", "cross_param_3 has 2 scales; 1 are expected"),
        ("cross_param_1 ", "cross_param_1 -1.0 ", "weight scale -1.0 of layer cross is not a positive number"),
        ("cross_param_", "crossing_param_", "crossing is no layer of the model that can be quantized"),
    ],
)
def test_damaged_lines_of_attention_are_refused(old: str, new: str, message: str, table: Path, tmp_path: Path) -> None:
    (tmp_path / "table").write_text(table.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        quantize_files(*transformer_network().write(tmp_path), tmp_path / "table", *out(tmp_path))


def test_attention_without_its_lines_is_refused_or_stays_in_float(table: Path, tmp_path: Path) -> None:
    lines = [line for line in table.read_text().splitlines() if not line.startswith("cross")]
    (tmp_path / "table").write_text("\n".join(lines) + "\n")
    pair = transformer_network().write(tmp_path)
    with pytest.raises(InputError, match="layer cross has no line cross_param_0"):
        quantize_files(*pair, tmp_path / "table", *out(tmp_path))
    assert "cross" not in quantize_files(*pair, tmp_path / "table", *out(tmp_path), keep_float=["cross"])


def test_scales_of_other_weights_are_refused(table: Path, tmp_path: Path) -> None:
    builder = transformer_network()
    cross = next(place for place, layer in enumerate(builder.layers) if layer.name == "cross")
    builder.weights[cross]["k_weight"] = builder.weights[cross]["k_weight"] * np.float32(1000)
    with pytest.raises(InputError, match=r"layer cross \(k_weight\) the largest weight of channel 0 becomes"):
        quantize_files(*builder.write(tmp_path), table, *out(tmp_path))


def test_products_can_be_kept_in_float_by_name(table: Path, tmp_path: Path) -> None:
    pair = transformer_network().write(tmp_path)
    names = quantize_files(*pair, table, *out(tmp_path), keep_float=["mix", "attention", "gather", "head"])
    assert names == ["patches", "expand", "reduce", "cross", "similarity"]
    int8 = NcnnModel.read(*out(tmp_path))
    assert [layer.name for layer in int8.layers if layer.int8_term] == names
    assert int8.named("mix")[1]["a"].dtype == int8.named("attention")[1]["q_weight"].dtype == np.float16


def test_a_network_of_products_alone_is_quantized(table: Path, tmp_path: Path) -> None:
    pair = transformer_network().write(tmp_path)
    write_crops(tmp_path / "crops", draw_crops(2))
    kept = ["patches", "head"]
    write_table(tmp_path / "alone", *pair, tmp_path / "crops", "kl", keep_float=kept)
    assert quantize_files(*pair, tmp_path / "alone", *out(tmp_path), keep_float=kept) == PRODUCTS
    with pytest.raises(InputError, match="no layer is left to quantize"):
        quantizable(transformer_network().layers, [*kept, *PRODUCTS])


def test_official_tool_is_not_asked_to_leave_a_product_out(table: Path, tmp_path: Path) -> None:
    pair = transformer_network().write(tmp_path)
    with pytest.raises(InputError, match="quantizes every matrix product, so mix cannot stay in float"):
        quantize_files(*pair, table, *out(tmp_path), keep_float=["mix"], tool="ncnn2int8")


def test_second_factor_is_scaled_by_all_of_its_weights() -> None:
    layer = Layer("Gemm", "it", ("x",), ("y",), {3: "1", 5: "1", 8: "2", 9: "2"})
    scales = product_scales(layer, {"b": np.array([0.1, -0.2, 0.5, 1.27], np.float32)})
    np.testing.assert_allclose(scales["b"], [100])


def rounded(values: Floats, scales: Floats) -> Floats:
    scaled = values * scales
    integers: Floats = np.clip(np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5)), -INT8_LIMIT, INT8_LIMIT)
    return integers


def scales_of(values: Floats, axis: int | None = None) -> Any:
    return np.float32(INT8_LIMIT) / np.abs(values).max(axis=axis, keepdims=axis is not None)


def product(first: Floats, second: Floats) -> Floats:
    """First (M, K) times second (N, K), as INT8: a scale for each row of the first, one for the second."""
    rows, whole = scales_of(first, 1), scales_of(second)
    found: Floats = (rounded(first, rows) @ rounded(second, whole).T / (rows * whole)).astype(np.float32)
    return found


def random(*shape: int) -> Floats:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("constant", [(0, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("sizes", [(17, 23, 13), (48, 32, 64), (1, 64, 48)])
def test_gemm_computes_as_numpy_does(
    sizes: tuple[int, int, int], constant: tuple[int, int], transposed: tuple[int, int]
) -> None:
    m, n, k = sizes
    first, second, added = random(m, k), random(n, k), random(n)
    stored = [first.T if transposed[0] else first, second if transposed[1] else second.T]
    params = {0: 0.5, 1: 3.0, 2: transposed[0], 3: transposed[1], 4: constant[0], 5: constant[1], 6: 1}
    params |= {7: m, 8: n, 9: k, 10: 4}
    given = [np.ascontiguousarray(values) for values, fixed in zip(stored, constant, strict=True) if not fixed]
    weights = {name: values.ravel() for name, values, fixed in zip("ab", stored, constant, strict=True) if fixed}
    bottoms = tuple(f"in{place}" for place in range(len(given)))
    layer = Layer("Gemm", "it", bottoms, ("out0",), {key: str(value) for key, value in params.items()})
    int8 = LayerNetwork(*quantize_product(layer, {**weights, "c": added}))
    expected = 0.5 * (product(first, second) + 3 * added)
    np.testing.assert_allclose(int8.run(given)[0], expected, rtol=1e-4, atol=1e-4)


def attention(weights: dict[str, NDArray[Any]], heads: int, queries: Floats, others: Floats) -> Floats:
    """What MultiHeadAttention computes in INT8 of queries, and of keys and values that are one."""
    width = len(weights["q_bias"])
    q, k, v = (
        product(weights[f"{name}_weight"].reshape(width, -1), given) + weights[f"{name}_bias"][:, np.newaxis]
        for name, given in (("q", queries), ("k", others), ("v", others))
    )
    size = width // heads
    parts = []
    for start in range(0, width, size):
        part = slice(start, start + size)
        scores = product(q[part].T / np.sqrt(np.float32(size)), k[part].T)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        parts.append(product(shares / shares.sum(axis=1, keepdims=True), v[part]).T)
    found: Floats = product(np.concatenate(parts).T, weights["out_weight"].reshape(-1, width)) + weights["out_bias"]
    return found


@pytest.mark.parametrize("name", ["attention", "cross"])
def test_attention_computes_as_numpy_does(name: str) -> None:
    layer, weights = transformer_network().model().named(name)
    given = [random(48, 16), random(31, 16)][: len(layer.bottoms)]
    int8 = LayerNetwork(*quantize_product(layer, weights)).run(given)[0]
    expected = attention(weights, layer.integer(1), given[0], given[-1])
    # A value that is half way between two integers may be rounded to either.
    assert sqnr(expected, int8) > 60
    assert sqnr(LayerNetwork(layer, weights).run(given)[0], int8) < 50


def test_attention_of_given_queries_keys_and_values_computes_as_numpy_does() -> None:
    queries, keys, values = random(2, 20, 8), random(2, 13, 8), random(2, 13, 12)
    layer = Layer("SDPA", "it", ("q", "k", "v"), ("out0",), {})
    int8 = LayerNetwork(*quantize_product(layer, {})).run([queries, keys, values])[0]
    for q, k, v, found in zip(queries, keys, values, int8, strict=True):
        scores = product(q, k) / np.sqrt(np.float32(8))
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected = product(shares / shares.sum(axis=1, keepdims=True), np.ascontiguousarray(v.T))
        assert sqnr(expected, found) > 60


def test_the_int8_network_computes_nearly_what_the_float_one_does(table: Path, tmp_path: Path) -> None:
    pair = transformer_network().write(tmp_path)
    crops = draw_crops(4, seed=9)
    reference = NcnnNetwork(*pair, "fp32", INPUT_SHAPE).forward(crops)[0]
    model, scales = NcnnModel.read(*pair), CalibrationTable.read(table)
    found = [
        sqnr(reference, NcnnNetwork.of(quantize(model, scales, kept), "int8", INPUT_SHAPE).forward(crops)[0])
        for kept in ([], PRODUCTS)
    ]
    assert 30 < found[0] < found[1]


def test_products_are_found_in_order() -> None:
    assert [layer.name for layer in products(transformer_network().layers)] == PRODUCTS
