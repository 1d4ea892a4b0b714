"""The ncnn model: the text of a `.param` file and the weights of its `.bin` file, read, checked and written.

The format is that of ncnn's `src/net.cpp`, `src/paramdict.cpp` and `src/modelbin.cpp`. Which weights a layer has, and
in which order, is in `load_model` of `src/layer/*.cpp`; the parameters' defaults are in `load_param` there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import require_file, whole

Number = TypeVar("Number", int, float)

MAGIC = "7767517"
PAIR_HINT = "The .param and the .bin must come from one conversion: convert the model again."

# Four bytes before a tagged weight say how it is stored (ncnn: src/modelbin.cpp, ModelBinFromDataReader::load).
FLOAT32_TAG = 0x00000000
RAW_FLOAT32_TAG = 0x0002C056
FLOAT16_TAG = 0x01306B47
INT8_TAG = 0x000D4B38
_DTYPES: dict[int, np.dtype[Any]] = {
    FLOAT32_TAG: np.dtype("<f4"),
    RAW_FLOAT32_TAG: np.dtype("<f4"),
    FLOAT16_TAG: np.dtype("<f2"),
    INT8_TAG: np.dtype("i1"),
}
_TAGS: dict[np.dtype[Any], int] = {np.dtype("<f4"): FLOAT32_TAG, np.dtype("<f2"): FLOAT16_TAG, np.dtype("i1"): INT8_TAG}

# Layers whose weights this module does not know how to read. Of all others that it does not list it assumes that they
# have none; where that is wrong, the length of the .bin gives it away.
_UNREADABLE = {"RNN", "LSTM", "GRU"}

INT8_TERM = {
    **dict.fromkeys(("Convolution", "ConvolutionDepthWise", "InnerProduct"), 8),
    **dict.fromkeys(("Gemm", "MultiHeadAttention", "SDPA", "Embed"), 18),
}
"""By the type of a layer, the parameter that marks it as INT8."""

ACTIVATION, ACTIVATION_VALUES = 9, 10
"""The parameters of a layer with weights that say which activation is fused to it, and (an array) its numbers."""

PAD_VALUE = 18
"""The parameter of a convolution with the value that it is padded with."""

MATRICES = frozenset({"weight", "a", "b", "q_weight", "k_weight", "v_weight", "out_weight"})
"""Names of the weights that a product is made with, as `weight_slots` calls them: not biases, norms and scales."""


@dataclass(frozen=True)
class Layer:
    """One line of a `.param` file.

    Attributes:
        type: the layer's type, e.g. `Convolution`.
        name: its name, unique within the model.
        bottoms: names of the blobs it reads.
        tops: names of the blobs it makes.
        params: its parameters, from the key as written (arrays have keys of -23300 and below) to the text of the value.
    """

    type: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: dict[int, str]

    def integer(self, key: int, default: int = 0) -> int:
        """Return parameter `key` as an integer, or `default` if the line does not have it."""
        return _number(self, int, self.params.get(key, str(default)))

    def real(self, key: int, default: float = 0.0) -> float:
        """Return parameter `key` as a number, or `default` if the line does not have it."""
        return _number(self, float, self.params.get(key, str(default)))

    def reals(self, key: int) -> list[float]:
        """Return array parameter `key` (0 and above; `params` has it by its `array_key`), empty if it is absent."""
        count, *values = self.params.get(array_key(key), "0").split(",")
        if _number(self, int, count) != len(values):
            raise InputError(f"layer {self.name}: array {key} announces {count} values but has {len(values)}.")
        return [_number(self, float, value) for value in values]

    @property
    def int8_term(self) -> int:
        """The layer's INT8 mark: 0 for float; above 100 where its output is requantized for the next layer."""
        return self.integer(INT8_TERM[self.type]) if self.type in INT8_TERM else 0


class Slot(NamedTuple):
    """One weight of a layer as the `.bin` holds it: its name, how many values, and whether a tag precedes it."""

    name: str
    size: int
    tagged: bool


Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class NcnnModel:
    """A network in ncnn's format.

    Attributes:
        layers: the lines of the `.param`, in order.
        weights: for each layer, its arrays by name (`weight`, `bias`, ...), one-dimensional. The dtype, float32,
            float16 or int8, says how they are stored.
    """

    layers: list[Layer]
    weights: list[Weights]

    @classmethod
    def read(cls, param: Path, bin_: Path) -> "NcnnModel":
        """Read a model; the weights are read-only views into the file.

        Raises:
            InputError: if a file is missing or malformed, is shorter or longer than the other says, holds a layer whose
                weights are unknown here, or if the INT8 marks of the `.param` do not fit the weights.
        """
        layers = read_param(param)
        return cls(layers, _read_weights(layers, param, bin_))

    def write(self, param: Path, bin_: Path) -> None:
        """Write both files, each whole or not at all; none if either cannot be written."""
        with whole(param) as draft_param, whole(bin_) as draft_bin:
            draft_param.write_text(format_param(self.layers))
            with draft_bin.open("wb") as stream:
                for layer, weights in zip(self.layers, self.weights, strict=True):
                    stream.write(encode_weights(layer, weights))

    def named(self, name: str) -> tuple[Layer, Weights]:
        """Return the layer called `name` and its weights; `KeyError` if there is none."""
        for layer, weights in zip(self.layers, self.weights, strict=True):
            if layer.name == name:
                return layer, weights
        raise KeyError(name)


def read_param(path: Path) -> list[Layer]:
    """Read a `.param` file; `InputError` if it is missing or malformed."""
    try:
        return parse_param(require_file(path).read_text())
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file. Give the .param, not the .bin.") from error
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def parse_param(text: str) -> list[Layer]:
    """Return the layers of the text of a `.param` file.

    Raises:
        InputError: naming the line, if it is not one: wrong magic or counts, a layer name twice, a blob that is read
            before it is made, made twice or read twice (ncnn copies blobs by Split layers only).
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or lines[0].strip() != MAGIC:
        raise InputError(f"not an ncnn .param file: its first line is not {MAGIC}.")
    counts = lines[1].split() if len(lines) > 1 else []
    # No file has so many that nine digits are not enough; Python refuses to read some thousands.
    if len(counts) != 2 or not all(count.isdecimal() and len(count) < 10 for count in counts):
        raise InputError("not an ncnn .param file: its second line is not the counts of layers and blobs.")
    layers = [_parse_layer(line) for line in lines[2:]]
    _check_graph(layers)
    found = (len(layers), len({top for layer in layers for top in layer.tops}))
    if found != (int(counts[0]), int(counts[1])):
        raise InputError(
            f"its second line announces {counts[0]} layers and {counts[1]} blobs, but there are {found[0]} and "
            f"{found[1]}. The file is cut off or edited."
        )
    return layers


def format_param(layers: list[Layer]) -> str:
    """Return the text of a `.param` file in the layout that ncnn's own tools and pnnx write."""
    lines = [MAGIC, f"{len(layers)} {len({top for layer in layers for top in layer.tops})}"]
    for layer in layers:
        head = f"{layer.type:<24} {layer.name:<24} {len(layer.bottoms)} {len(layer.tops)}"
        params = (f"{key}={value}" for key, value in layer.params.items())
        lines.append(" ".join((head, *layer.bottoms, *layer.tops, *params)))
    return "\n".join(lines) + "\n"


def weight_slots(layer: Layer) -> list[Slot]:
    """Return the weights that the `.bin` holds for `layer`, in order; `InputError` if that is not known."""
    return [Slot(name, size, tagged) for name, size, tagged in _slots(layer) if size]


def encode_weights(layer: Layer, weights: Weights) -> bytes:
    """Return the weights of a layer as the `.bin` holds them."""
    return b"".join(_encoded(weights[slot.name], slot.tagged) for slot in weight_slots(layer))


def array_key(key: int) -> int:
    """Return the key by which a `.param` file has array parameter `key` (0 and above)."""
    return -23300 - key


def weighted_inputs(layer: Layer) -> int | None:
    """Return the number of input channels (of an inner product, values) that a layer's weights are made for, if any."""
    if layer.type == "InnerProduct":
        return layer.integer(2) // layer.integer(0)
    dynamic = {"Convolution": 19, "ConvolutionDepthWise": 19, "Deconvolution": 28, "DeconvolutionDepthWise": 28}
    if layer.type not in dynamic or layer.integer(dynamic[layer.type]):
        return None
    width = layer.integer(1)
    outputs = layer.integer(0) * width * layer.integer(11, width)
    return layer.integer(6) * layer.integer(7, 1) // outputs


def is_sum(layer: Layer) -> bool:
    """Say whether a layer adds up two blobs."""
    return layer.type == "BinaryOp" and layer.integer(0) == 0 and len(layer.bottoms) == 2


def is_grouped(layer: Layer) -> bool:
    """Say whether a layer is a convolution in groups with weights of its own, and not depthwise."""
    return layer.type == "ConvolutionDepthWise" and layer.integer(7, 1) not in (1, weighted_inputs(layer) or 1)


def _slots(layer: Layer) -> Iterator[tuple[str, int, bool]]:
    integer = layer.integer
    match layer.type:
        case (
            "Convolution" | "Convolution1D" | "Convolution3D" | "ConvolutionDepthWise" | "ConvolutionDepthWise1D"
            | "ConvolutionDepthWise3D" | "DeformableConv2D"
        ) if not integer(19):  # fmt: skip
            yield "weight", integer(6), True
            yield "bias", integer(0) if integer(5) else 0, False
            if term := layer.int8_term:
                scales = integer(0)
                if layer.type == "ConvolutionDepthWise":
                    scales = integer(7, 1) if term % 100 == 1 else 1
                yield "weight_scales", scales, False
                yield "bottom_scales", 1, False
                yield "top_scales", int(term > 100), False
        case (
            "Deconvolution" | "Deconvolution1D" | "Deconvolution3D" | "DeconvolutionDepthWise"
            | "DeconvolutionDepthWise1D" | "DeconvolutionDepthWise3D"
        ) if not integer(28):  # fmt: skip
            yield "weight", integer(6), True
            yield "bias", integer(0) if integer(5) else 0, False
        case "InnerProduct":
            yield "weight", integer(2), True
            yield "bias", integer(0) if integer(1) else 0, False
            if layer.int8_term:
                yield "weight_scales", integer(0), False
                yield "bottom_scales", 1, False
        case "Embed":
            yield "weight", integer(3), True
            yield "bias", integer(0) if integer(2) else 0, False
            yield "weight_scales", int(bool(layer.int8_term)), False
        case "BatchNorm":
            for name in ("slope", "mean", "variance", "bias"):
                yield name, integer(0), False
        case "Bias":
            yield "bias", integer(0), False
        case "Scale" if integer(0) != -233:  # -233: the scale is a second input, not a weight
            yield "scale", integer(0), False
            yield "bias", integer(0) if integer(1) else 0, False
        case "PReLU":
            yield "slope", integer(0), False
        case "InstanceNorm" | "LayerNorm" if integer(2, 1):
            yield "gamma", integer(0), False
            yield "beta", integer(0), False
        case "GroupNorm" if integer(3, 1):
            yield "gamma", integer(1), False
            yield "beta", integer(1), False
        case "RMSNorm" if integer(2, 1):
            yield "gamma", integer(0), False
        case "Normalize":
            yield "scale", integer(3), False
        case "Padding":
            yield "values", integer(6), False
        case "MemoryData":
            sizes = [size for size in map(integer, (0, 1, 2, 11)) if size]
            yield "data", prod(sizes) if sizes else 0, integer(21, 1) == 0
        case "Quantize":
            yield "scale", integer(0, 1), False
        case "Dequantize":
            yield "scale", integer(0, 1), False
            yield "bias", integer(1), False
        case "Requantize":
            yield "scale_in", integer(0, 1), False
            yield "scale_out", integer(1, 1), False
            yield "bias", integer(2), False
        case "Gemm":
            yield from _gemm_slots(layer)
        case "MultiHeadAttention":
            yield from _attention_slots(layer)
        case other if other in _UNREADABLE:
            raise InputError(f"layer {layer.name}: weights of {other} layers are not supported.")


def _gemm_slots(layer: Layer) -> Iterator[tuple[str, int, bool]]:
    """Weights of a general matrix product, A (M, K) times B (K, N) plus C (ncnn: src/layer/gemm.cpp)."""
    _refuse_blocks(layer)
    rows, columns, inner = layer.integer(7), layer.integer(8), layer.integer(9)
    yield "a", rows * inner if layer.integer(4) else 0, True
    yield "b", columns * inner if layer.integer(5) else 0, True
    counts_of_c = {0: 1, 1: rows, 2: rows, 3: rows * columns, 4: columns}
    yield "c", counts_of_c.get(layer.integer(10), 0) if layer.integer(6) else 0, True
    if layer.int8_term:
        yield "a_scales", rows if layer.integer(4) else 0, False
        yield "b_scales", int(bool(layer.integer(5))), False


def _attention_slots(layer: Layer) -> Iterator[tuple[str, int, bool]]:
    """Weights of multi-head attention (ncnn: src/layer/multiheadattention.cpp)."""
    _refuse_blocks(layer)
    embedding, heads = layer.integer(0), layer.integer(1, 1)
    if heads < 1:
        raise InputError(f"layer {layer.name}: attention has {heads} heads.")
    query = layer.integer(2) // embedding if embedding else 0
    for name, size in (("q", query), ("k", layer.integer(3, embedding)), ("v", layer.integer(4, embedding))):
        yield f"{name}_weight", embedding * size, True
        yield f"{name}_bias", embedding, False
    yield "out_weight", query * embedding, True
    yield "out_bias", query, False
    if layer.int8_term:
        for name in ("q", "k", "v"):
            yield f"{name}_scales", embedding, False
        yield "out_scales", 1, False


def _refuse_blocks(layer: Layer) -> None:
    """Refuse weights of 4, 6 or 8 bits with a scale for each block, as language models have them."""
    if layer.int8_term >= 400:
        raise InputError(f"layer {layer.name}: weights quantized in blocks (18={layer.int8_term}) are not supported.")


def _parse_layer(line: str) -> Layer:
    tokens = line.split()
    try:
        type_, name = tokens[:2]
        bottoms, tops = (int(count) for count in tokens[2:4])
        blobs, params = tokens[4 : 4 + bottoms + tops], tokens[4 + bottoms + tops :]
        if min(bottoms, tops) < 0 or len(blobs) != bottoms + tops or any("=" in blob for blob in blobs):
            raise ValueError
        pairs = [param.split("=", 1) for param in params]
        values = {int(key): value for key, value in pairs}
        if len(values) != len(pairs) or not all(values.values()):
            raise ValueError
    except ValueError:
        raise InputError(f"cannot read the layer line {line.strip()!r}. The file is cut off or edited.") from None
    return Layer(type_, name, tuple(blobs[:bottoms]), tuple(blobs[bottoms:]), values)


def _check_graph(layers: list[Layer]) -> None:
    names: set[str] = set()
    made: set[str] = set()
    unread: set[str] = set()
    for layer in layers:
        if layer.name in names:
            raise InputError(f"two layers are called {layer.name}. Rename one of them.")
        names.add(layer.name)
        for blob in layer.bottoms:
            if blob not in unread:
                fault = "which another layer reads too" if blob in made else "which no layer before it makes"
                raise InputError(f"layer {layer.name} reads blob {blob}, {fault}.")
            unread.remove(blob)
        for blob in layer.tops:
            if blob in made:
                raise InputError(f"layer {layer.name} makes blob {blob}, which another layer makes too.")
            made.add(blob)
            unread.add(blob)


def _number(layer: Layer, kind: type[Number], text: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"layer {layer.name}: {text!r} is not the number that is expected there.") from None


def _read_weights(layers: list[Layer], param: Path, bin_: Path) -> list[Weights]:
    # A network without weights has an empty .bin.
    if not bin_.is_file():
        raise InputError(f"{bin_}: no such file. {PAIR_HINT}")
    content = np.asarray(np.memmap(bin_, np.uint8, "r")) if bin_.stat().st_size else np.empty(0, np.uint8)
    weights: list[Weights] = []
    position = 0
    for layer in layers:
        try:
            slots = weight_slots(layer)
        except InputError as error:
            raise InputError(f"{param}: {error}") from error
        found: Weights = {}
        for slot in slots:
            dtype = np.dtype("<f4")
            if slot.tagged:
                dtype = _tagged_dtype(_bytes(content, position, 4, bin_, layer), bin_, layer)
                position += 4
            size = slot.size * dtype.itemsize
            found[slot.name] = _bytes(content, position, size, bin_, layer).view(dtype)
            position += size + -size % 4
        for name in sorted(MATRICES & found.keys()):
            if bool(layer.int8_term) != (found[name].dtype == np.int8):
                raise InputError(
                    f"{bin_}: the weights of layer {layer.name} are {found[name].dtype.name}, but in {param} the layer "
                    f"{'is' if layer.int8_term else 'is not'} marked as INT8. {PAIR_HINT}"
                )
        weights.append(found)
    if position > content.size:
        raise InputError(f"{bin_}: the file is cut off in the weights of the last layer that has any. {PAIR_HINT}")
    if position < content.size:
        last = next((layer.name for layer, found in zip(layers[::-1], weights[::-1], strict=True) if found), "none")
        raise InputError(
            f"{bin_}: {content.size - position} bytes are left after layer {last}, the last one with weights in "
            f"{param}. {PAIR_HINT}"
        )
    return weights


def _bytes(content: NDArray[np.uint8], start: int, size: int, bin_: Path, layer: Layer) -> NDArray[np.uint8]:
    if size < 0 or start + size > content.size:
        raise InputError(f"{bin_}: the file is cut off in the weights of layer {layer.name}. {PAIR_HINT}")
    return content[start : start + size]


def _tagged_dtype(tag: NDArray[np.uint8], bin_: Path, layer: Layer) -> np.dtype[Any]:
    value = int.from_bytes(tag.tobytes(), "little")
    if value not in _DTYPES:
        raise InputError(f"{bin_}: layer {layer.name} has weights of an unknown kind ({value:#010x}). {PAIR_HINT}")
    return _DTYPES[value]


def _encoded(values: NDArray[Any], tagged: bool) -> bytes:
    """Return an array as the `.bin` holds it: the tag if it has one, the values, zeros up to a multiple of 4 bytes."""
    head = _TAGS[values.dtype].to_bytes(4, "little") if tagged else b""
    data = (values if tagged else values.astype("<f4", copy=False)).tobytes()
    return head + data + bytes(-len(data) % 4)
