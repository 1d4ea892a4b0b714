"""Taking in ncnn networks from elsewhere: the names of their ends, what is folded, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import (
    INPUT_SHAPE,
    Builder,
    Floats,
    bias,
    draw_crops,
    sqnr,
    unfused_network,
    weight,
    write_crops,
)

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.model_spec import ModelSpec
from posequant.export.import_ncnn import Source, import_ncnn
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork, load_net, to_mat
from posequant.networks.ncnn_torch.network import unsupported
from posequant.quantize.ncnn2int8 import quantize
from posequant.quantize.ncnn2table import calibrate

SIZE = INPUT_SHAPE[2], INPUT_SHAPE[1]
SPEC = ModelSpec(
    name="net",
    input_size=SIZE,
    mean=(0, 0, 0),
    std=(1, 1, 1),
    to_rgb=True,
    padding=1.25,
    use_udp=False,
    codec={"type": "MSRAHeatmap", "input_size": SIZE, "heatmap_size": SIZE, "sigma": 2},
    flip_mode="heatmap",
    shift_heatmap=False,
    input_name="in0",
    output_names=("out0",),
)
SIMCC = replace(
    SPEC, codec={"type": "SimCCLabel", "input_size": SIZE, "simcc_split_ratio": 1.0}, output_names=("out0", "out1")
)
FLOAT16, FLOAT32 = np.dtype("<f2"), np.dtype("<f4")


def plain(output: str = "out0") -> Builder:
    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("first", "in0", "a", weight(8, 3, 3, 3), bias(8), relu=True)
        .convolution("last", "a", output, weight(17, 8, 1, 1))
    )


def in_float16(builder: Builder) -> Builder:
    halves = [
        {name: array.astype(np.float16) if name == "weight" else array for name, array in weights.items()}
        for weights in builder.weights
    ]
    return Builder(builder.layers, halves)


class Imported:
    """A network that was taken in."""

    def __init__(self, builder: Builder, folder: Path, spec: ModelSpec = SPEC, **blobs: Any) -> None:
        self.source = Source(*builder.write(folder, "mine"), **blobs)
        self.fp32, self.fp16 = (
            (folder / f"ncnn-{weights}.param", folder / f"ncnn-{weights}.bin") for weights in ("fp32", "fp16")
        )
        self.records = import_ncnn(self.source, spec, fp32=self.fp32, fp16=self.fp16)
        self.model = NcnnModel.read(*self.fp32)
        self.changes = self.records["fp32"]["changes"]
        self.types = [layer.type for layer in self.model.layers]

    def outputs(self) -> list[Floats]:
        return NcnnNetwork(*self.fp32, "fp32", INPUT_SHAPE).forward(draw_crops(1))

    def given(self, blob_in: str, blob: str) -> Floats:
        """What the user's own files compute."""
        extractor = load_net(self.source.param, self.source.bin, "fp32").create_extractor()
        extractor.input(blob_in, to_mat(draw_crops(1)[0]))
        return np.array(extractor.extract(blob)[1])


def test_what_pnnx_wrote_stays_byte_by_byte(tmp_path: Path) -> None:
    imported = Imported(plain(), tmp_path)
    assert imported.changes == []
    for ours, theirs in zip(imported.fp32, (imported.source.param, imported.source.bin), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert imported.records["fp32"]["difference"]["sqnr_db"] is None
    assert imported.records["fp32"]["layers"] == {"Convolution": 2, "Input": 1}


def test_records_name_the_files(tmp_path: Path) -> None:
    imported = Imported(plain(), tmp_path)
    for files, record in ((imported.fp32, imported.records["fp32"]), (imported.fp16, imported.records["fp16"])):
        assert record["sha256"] == {file.name: sha256(file) for file in files}


def test_both_kinds_of_weights_are_made_of_either(tmp_path: Path) -> None:
    imported = Imported(in_float16(plain()), tmp_path)
    stored = [NcnnModel.read(*files).named("first")[1] for files in (imported.fp32, imported.fp16)]
    assert [(one["weight"].dtype, one["bias"].dtype) for one in stored] == [(FLOAT32, FLOAT32), (FLOAT16, FLOAT32)]
    np.testing.assert_array_equal(stored[0]["weight"], stored[1]["weight"])
    assert imported.fp16[1].read_bytes() == imported.source.bin.read_bytes()
    assert imported.changes == ["weights of 2 layers in float32, not float16"]


def test_weights_that_float16_cannot_hold_stay_in_float32(tmp_path: Path) -> None:
    builder = plain()
    builder.weights[1]["weight"][0] = 1e5
    imported = Imported(builder, tmp_path)
    kinds = [NcnnModel.read(*imported.fp16).named(name)[1]["weight"].dtype for name in ("first", "last")]
    assert kinds == [FLOAT32, FLOAT16]


def old_network() -> Builder:
    """A network as onnx2ncnn writes it: numbers for names, a shuffle of channels, a gate."""
    return (
        Builder()
        .add("Input", "image", "", "0")
        .convolution("Conv_0", "0", "123", weight(8, 3, 3, 3), bias(8), stride=2, relu=True)
        .add("Slice", "Split_0", "123", "124 125", {-23300: "2,-233,-233"})
        .convolution("Conv_1", "125", "126", weight(4, 4, 1, 1), bias(4))
        .add("Concat", "Concat_0", "124 126", "127")
        .add("Reshape", "Reshape_0", "127", "128", {0: 48, 1: 4, 2: 2})
        .add("Permute", "Transpose_0", "128", "129", {0: 2})
        .add("Reshape", "Reshape_1", "129", "130", {0: 6, 1: 8, 2: 8})
        .add("Split", "splitncnn_0", "130", "130_0 130_1 130_2")
        .add("Pooling", "Pool_0", "130_1", "131", {0: 1, 4: 1})
        .convolution("Conv_2", "131", "132", weight(8, 8, 1, 1), bias(8))
        .add("HardSigmoid", "HardSigmoid_0", "132", "133", {0: "1.666667e-01", 1: "5.000000e-01"})
        .add("BinaryOp", "Mul_0", "130_0 133", "134", {0: 2})
        .add("Interp", "Resize_0", "134", "135", {0: 1, 1: "2.000000e+00", 2: "2.000000e+00"})
        .add("Interp", "Resize_1", "135", "136", {0: 2, 3: 16, 4: 12})
        .convolution("Conv_3", "136", "137", weight(17, 8, 3, 3), bias(17))
    )


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    return Imported(in_float16(old_network()), tmp_path_factory.mktemp("old"))


def test_file_of_onnx2ncnn_computes_the_same(old: Imported) -> None:
    np.testing.assert_array_equal(old.outputs()[0][0], old.given("0", "137"))
    assert old.changes == [
        "blob 0 called in0",
        "blob 137 called out0",
        "weights of 4 layers in float32, not float16",
    ]


def test_copies_that_nothing_reads_go(old: Imported) -> None:
    (split,) = (layer for layer in old.model.layers if layer.type == "Split")
    assert split.tops == ("130_0", "130_1")


def test_file_of_onnx2ncnn_can_be_trained(old: Imported) -> None:
    assert unsupported(old.model) == []


def test_file_of_onnx2ncnn_can_be_quantized(old: Imported, tmp_path: Path) -> None:
    crops = draw_crops(4)
    table = calibrate(*old.fp32, write_crops(tmp_path / "crops", crops), "kl")
    files = tmp_path / "int8.param", tmp_path / "int8.bin"
    quantize(old.model, table).write(*files)
    (int8,) = NcnnNetwork(*files, "int8", INPUT_SHAPE, SPEC.output_shapes).forward(crops[:1])
    assert sqnr(old.outputs()[0], int8) > 15


@pytest.mark.parametrize("kind", ["ReLU", "Clip", "Sigmoid"])
def test_normalisations_and_activations_are_folded(tmp_path: Path, kind: str) -> None:
    imported = Imported(unfused_network(kind), tmp_path)
    assert imported.types == ["Input", "Convolution", "DeconvolutionDepthWise", "Convolution"]
    assert sqnr(imported.given("data", "bias"), imported.outputs()[0][0]) > 100


def test_output_in_the_middle_is_not_folded_into(tmp_path: Path) -> None:
    imported = Imported(unfused_network("ReLU"), tmp_path, outputs=["head"])
    np.testing.assert_allclose(imported.outputs()[0][0], imported.given("data", "head"), atol=1e-5)


def test_what_lies_behind_the_outputs_is_cut_off(tmp_path: Path) -> None:
    builder = plain("heatmap").add("Softmax", "probabilities", "heatmap", "softmax", {0: 0})
    imported = Imported(builder, tmp_path, outputs=["heatmap"])
    assert imported.types == ["Input", "Convolution", "Convolution"]
    assert imported.changes == ["blob heatmap called out0", "1 layers left out that the outputs do not need"]


def test_layer_that_ncnn_lacks_behind_the_outputs_is_cut_off(tmp_path: Path) -> None:
    builder = plain("heatmap").add("ArgMaxOfMine", "argmax", "heatmap", "points")
    imported = Imported(builder, tmp_path, outputs=["heatmap"])
    assert imported.types == ["Input", "Convolution", "Convolution"]
    assert imported.records["fp32"]["difference"]["sqnr_db"] is None


def test_layers_of_one_name_that_pnnx_leaves_are_named(tmp_path: Path) -> None:
    builder = plain("x").add("pnnx.Expression", "post", "x", "y").add("pnnx.Expression", "post", "y", "out0")
    with pytest.raises(InputError, match=r"two layers are called post.*ncnn has no layer of type pnnx.Expression"):
        Imported(builder, tmp_path)


def test_what_lies_before_the_input_is_cut_off(tmp_path: Path) -> None:
    builder = (
        Builder()
        .add("Input", "data", "", "data")
        .add("BinaryOp", "scale", "data", "crop", {0: 2, 1: 1, 2: "3.900000e-03"})
        .convolution("conv", "crop", "heatmap", weight(17, 3, 1, 1))
    )
    imported = Imported(builder, tmp_path, input="crop")
    assert imported.types == ["Input", "Convolution"]


@pytest.mark.parametrize("names", [("x", "y"), ("out1", "out0")])
def test_output_that_is_read_as_well(tmp_path: Path, names: tuple[str, str]) -> None:
    builder = (
        plain("maps")
        .add("Pooling", "pool_x", "maps", "pooled_x", {0: 1, 7: 1, 8: 12, 18: 1})
        .add("Reshape", "flat_x", "pooled_x", names[0], {0: 12, 1: 17})
        .inner_product("to_y", names[0], names[1], weight(16, 12), bias(16))
    )
    imported = Imported(builder, tmp_path, SIMCC, outputs=list(names))
    x, y = imported.outputs()
    np.testing.assert_array_equal(x[0], imported.given("in0", names[0]))
    np.testing.assert_array_equal(y[0], imported.given("in0", names[1]))


def test_names_that_others_have(tmp_path: Path) -> None:
    builder = (
        Builder()
        .add("Input", "in0", "", "data")
        .convolution("first", "data", "out0", weight(8, 3, 3, 3), relu=True)
        .convolution("second", "out0", "in0", weight(8, 8, 1, 1))
        .convolution("last", "in0", "heatmap", weight(17, 8, 1, 1))
    )
    imported = Imported(builder, tmp_path)
    np.testing.assert_array_equal(imported.outputs()[0][0], imported.given("data", "heatmap"))


def test_arrays_without_a_length_get_one(tmp_path: Path) -> None:
    builder = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv", "in0", "a", weight(8, 3, 3, 3))
        .add("Slice", "slice", "a", "b c", {0: "3,5"})
        .add("Concat", "concat", "c b", "d")
        .convolution("last", "d", "out0", weight(17, 8, 1, 1))
    )
    imported = Imported(builder, tmp_path)
    assert imported.model.named("slice")[0].params == {-23300: "2,3,5"}
    np.testing.assert_array_equal(imported.outputs()[0][0], imported.given("in0", "out0"))


@pytest.mark.parametrize(("kind", "operation"), [("0", "2"), ("1", "0"), ("2", "4")])
def test_sums_of_caffe2ncnn_are_those_of_today(tmp_path: Path, kind: str, operation: str) -> None:
    builder = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv", "in0", "a", weight(8, 3, 3, 3))
        .add("Split", "split", "a", "b c")
        .convolution("other", "c", "d", weight(8, 8, 1, 1))
        .add("Eltwise", "sum", "b d", "e", {0: kind, -23301: "0"})
        .convolution("last", "e", "out0", weight(17, 8, 1, 1))
    )
    imported = Imported(builder, tmp_path)
    layer, _ = imported.model.named("sum")
    assert (layer.type, layer.params) == ("BinaryOp", {0: operation})
    np.testing.assert_allclose(imported.outputs()[0][0], imported.given("in0", "out0"), atol=1e-6)


def two_inputs() -> Builder:
    return (
        Builder()
        .add("Input", "data", "", "data")
        .add("Input", "info", "", "im_info")
        .add("BinaryOp", "add", "data im_info", "sum", {0: 0})
        .convolution("last", "sum", "heatmap", weight(17, 3, 1, 1))
    )


def int8() -> Builder:
    builder = plain()
    layer, weights = builder.layers[2], builder.weights[2]
    builder.layers[2] = replace(layer, params=layer.params | {8: "2"})
    scales = {"weight_scales": np.ones(17, np.float32), "bottom_scales": np.ones(1, np.float32)}
    builder.weights[2] = {"weight": np.ones(weights["weight"].shape, np.int8), **scales}
    return builder


def crashing() -> Builder:
    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv", "in0", "a", weight(8, 3, 3, 3))
        .add("Slice", "halves", "a", "b c")
        .add("Concat", "concat", "b c", "d")
        .convolution("last", "d", "out0", weight(17, 8, 1, 1))
    )


REFUSED: dict[str, tuple[Builder, dict[str, Any], str]] = {
    "unknown output": (plain(), {"outputs": ["heatmap"]}, r"has no blob 'heatmap'.*No layer reads \['out0'\]"),
    "unknown input": (plain(), {"input": "data"}, r"has no blob 'data'.*Its inputs are \['in0'\]"),
    "two inputs": (two_inputs(), {}, r"has the inputs \['data', 'im_info'\]. Name the blob .* 'input'"),
    "another input": (two_inputs(), {"input": "data"}, "needs the input 'im_info' beside 'data'"),
    "not from the input": (
        plain().add("MemoryData", "constant", "", "c", {0: 12, 1: 16, 2: 17}, data=weight(12 * 16 * 17, 1).ravel()),
        {"outputs": ["c"]},
        "does not compute .*'c'.* from 'in0'",
    ),
    "input as output": (plain(), {"outputs": ["in0"]}, "is to give 'in0', which is its input"),
    "too many ends": (
        plain("x").add("Split", "s", "x", "y z").add("ReLU", "r", "y", "r").add("ReLU", "q", "z", "q"),
        {},
        r"ends in the blobs \['q', 'r'\], where the codec decodes 1. Name it by the key 'outputs'",
    ),
    "part that nothing reads": (
        plain("x").add("Slice", "s", "x", "y z", {-23300: "2,17,-233"}),
        {"outputs": ["y"]},
        r"layer s \(Slice\) makes the blob 'z', which nothing reads",
    ),
    "INT8": (int8(), {}, "layer last is INT8 already. Give the float network"),
    "permuting Reshape": (
        plain("x").add("Reshape", "flat", "x", "out0", {0: -1, 3: 1}),
        {},
        "layer flat is a Reshape that permutes .* Convert the network again",
    ),
    "layer that ncnn lacks": (
        plain("x").add("pnnx.Expression", "post", "x", "out0"),
        {},
        "ncnn has no layer of type pnnx.Expression, which 'post' is",
    ),
    "other heatmaps": (plain("x").add("Pooling", "pool", "x", "out0", {1: 2, 2: 2}), {}, "the codec reads 17x16x12"),
    "crash": (crashing(), {}, r"crashed \(SIGSEGV.* while it computed layer halves \(Slice\) of .*mine.param"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_in_is_named(tmp_path: Path, case: str) -> None:
    builder, blobs, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        Imported(builder, tmp_path, **blobs)
    assert str(tmp_path / "mine.param") in str(caught.value)
    assert not list(tmp_path.glob("ncnn-*"))


def test_files_of_two_networks(tmp_path: Path) -> None:
    source = Source(*plain().write(tmp_path, "mine"))
    _, other = two_inputs().write(tmp_path, "other")
    with pytest.raises(InputError, match="cut off in the weights of layer first"):
        import_ncnn(
            replace(source, bin=other),
            SPEC,
            fp32=(tmp_path / "a.param", tmp_path / "a.bin"),
            fp16=(tmp_path / "b.param", tmp_path / "b.bin"),
        )
