"""Crops taken through a network layer by layer: the same bits as through the whole network."""

from pathlib import Path

import numpy as np
from tests.unit.ncnn_fixtures import INPUT_SHAPE, Floats, draw_crops, small_network, small_network_in_numpy, write_crops

from posequant.ncnn_format.model import Layer, NcnnModel, Weights
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize, quantize_layer
from posequant.quantize.ncnn2table import calibrate
from posequant.quantize.propagation import Visit, affordable, propagate
from posequant.quantize.weights import quantizable

CROPS = draw_crops(5)


def propagated(folder: Path, threads: int) -> tuple[list[Floats], list[Floats], list[Floats]]:
    """Outputs as float, as quantized, and those of the whole INT8 network."""
    floats, quantized = small_model_quantized(folder, threads=threads)
    return (
        floats,
        quantized,
        NcnnNetwork(folder / "int8.param", folder / "int8.bin", "int8", INPUT_SHAPE).forward(CROPS),
    )


def small_model_quantized(
    folder: Path, *, threads: int = 1, quantized_only: bool = False
) -> tuple[list[Floats], list[Floats]]:
    """Outputs as float and as quantized; the INT8 network is written into the folder."""
    model = small_network().model()
    files = small_network().write(folder)
    table = calibrate(*files, write_crops(folder / "crops", CROPS), "kl")
    quantize(model, table).write(folder / "int8.param", folder / "int8.bin")

    def quantizer(visit: Visit) -> tuple[Layer, Weights]:
        name = visit.layer.name
        return quantize_layer(visit.layer, visit.weights, table.weight_scales[name], table.activation_scales[name])

    names = [layer.name for layer in quantizable(model.layers)]
    floats, quantized = propagate(model, list(CROPS), quantizer, names, threads=threads, quantized_only=quantized_only)
    return [np.stack(values) for values in floats], [np.stack(values) for values in quantized]


def test_float_way_is_the_float_network(tmp_path: Path) -> None:
    floats, _, _ = propagated(tmp_path, threads=1)
    expected = NcnnNetwork(*small_network().write(tmp_path), "fp32", INPUT_SHAPE).forward(CROPS)
    for one, other in zip(floats, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_quantized_way_is_the_int8_network_to_the_bit(tmp_path: Path) -> None:
    _, quantized, expected = propagated(tmp_path, threads=1)
    for one, other in zip(quantized, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_change_nothing(tmp_path: Path) -> None:
    for name in ("one", "three"):
        (tmp_path / name).mkdir()
    _, alone, _ = propagated(tmp_path / "one", threads=1)
    _, together, _ = propagated(tmp_path / "three", threads=3)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_visit_sees_inputs_outputs_and_living_blobs() -> None:
    model = small_network().model()
    expected = small_network_in_numpy(model, CROPS[0])
    seen: dict[str, set[str]] = {}

    def look(visit: Visit) -> None:
        np.testing.assert_allclose(visit.inputs[0], expected[visit.layer.bottoms[0]], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(visit.outputs[0], expected[visit.layer.tops[0]], rtol=1e-4, atol=1e-5)
        seen[visit.layer.name] = set(visit.alive)

    propagate(model, list(CROPS[:1]), look, ["conv_a", "conv_d", "conv_g"])
    assert seen == {"conv_a": {"in0"}, "conv_d": {"b1", "c"}, "conv_g": {"f0", "f1", "e1"}}


def test_float_way_alone_is_the_same(tmp_path: Path) -> None:
    model = small_network().model()
    seen: list[list[Floats]] = []

    def look(visit: Visit) -> None:
        assert visit.reached is visit.inputs
        seen.append(visit.outputs)

    alone, same = propagate(model, list(CROPS), look, ["conv_a", "conv_g"], float_only=True)
    floats, _, _ = propagated(tmp_path, threads=1)
    for one, other, expected in zip(alone, same, floats, strict=True):
        np.testing.assert_array_equal(np.stack(one), expected)
        np.testing.assert_array_equal(np.stack(other), expected)
    assert len(seen) == 2


def test_quantized_way_alone_is_the_same(tmp_path: Path) -> None:
    for name in ("both", "one"):
        (tmp_path / name).mkdir()
    _, expected, _ = propagated(tmp_path / "both", threads=1)
    floats, quantized = small_model_quantized(tmp_path / "one", quantized_only=True)
    assert not floats
    for one, other in zip(quantized, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_network_resumes_from_living_blobs(tmp_path: Path) -> None:
    files = small_network().write(tmp_path)
    network = NcnnNetwork(*files, "fp32", INPUT_SHAPE)
    expected = network.forward(CROPS[:1])
    outputs: list[Floats] = []

    def look(visit: Visit) -> None:
        blobs = {name: values[0] for name, values in visit.alive.items() if name != visit.layer.bottoms[0]}
        outputs.extend(network.resume({**blobs, visit.layer.tops[0]: visit.outputs[0]}))

    propagate(NcnnModel.read(*files), list(CROPS[:1]), look, ["conv_d"])
    for one, other in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(one, other[0])


def test_crops_are_as_many_as_memory_holds() -> None:
    model = small_network().model()
    sizes = {top: 10 for layer in model.layers for top in layer.tops}
    # Behind conv_d three blobs are held: b1, c and d; as many at other places, never more.
    most = 3 * 10
    assert affordable(model, sizes, 100, limit=7 * 2 * 4 * most) == 7
    assert affordable(model, sizes, 3, limit=7 * 2 * 4 * most) == 3
    assert affordable(model, sizes, 3, limit=0) == 1
