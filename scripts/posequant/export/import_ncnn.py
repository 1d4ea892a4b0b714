"""Taking in an ncnn network from elsewhere, so that all that follows finds it as if it were converted here."""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posequant.base.errors import InputError
from posequant.base.files import named_as
from posequant.base.model_spec import ModelSpec
from posequant.base.supervision import crash_of, doing
from posequant.base.verify import MIN_SQNR_DB, Tensor, hashes, require_same, verification, versions
from posequant.export.audit import INT8_LAYERS, ncnn_has_layer
from posequant.export.cut import cut, input_of, named_as_pnnx_does, outputs_of
from posequant.export.fold import fold
from posequant.ncnn_format.model import Layer, NcnnModel, Weights, array_key, weight_slots

if TYPE_CHECKING:
    from pandas import DataFrame

_SEED = 0
# The parameter of old Reshape layers that put the channels last.
_PERMUTE = 3
# The operations of Eltwise, product, sum and maximum, and what BinaryOp calls them.
_BINARY = {0: 2, 1: 0, 2: 4}


@dataclass(frozen=True)
class Source:
    """A user's network.

    Attributes:
        param: its `.param`.
        bin: its `.bin`, with weights in float32 or float16.
        input: the blob that takes the crop; None for the only input.
        outputs: the blobs that are decoded, in the order of the codec; None for those that no layer reads.
    """

    param: Path
    bin: Path
    input: str | None = None
    outputs: Sequence[str] | None = None


def import_ncnn(source: Source, spec: ModelSpec, *, fp32: tuple[Path, Path], fp16: tuple[Path, Path]) -> dict[str, Any]:
    """Write a network as those are that are converted here, and check that it computes what it did.

    What the outputs do not need is cut off, the input is called `in0`, the outputs `out0`, `out1`, ...; normalisations
    and activations are folded into the layers before them. Layers keep their names.

    The files are tried out on one crop of seeded random values in a process of its own: ncnn crashes on many a network
    that it cannot compute.

    Args:
        source: the user's network.
        spec: what it is to take and to give.
        fp32: the `.param` and the `.bin` to write with weights in float32.
        fp16: those to write with weights in float16.

    Returns:
        The records of the two, `fp32` and `fp16`: what was changed, layers, difference, versions, sha256.

    Raises:
        InputError: the files are damaged or do not belong together, are INT8 already, hold a layer that ncnn lacks or
            computes in another way than it was meant, or do not take or give what `spec` says; ncnn crashes on them; a
            blob that the user names is not there. The message names the file, the layer, and what to do.
    """
    taken = taken_in(source, len(spec.output_shapes))
    full = taken.model
    half = NcnnModel(full.layers, [_in_float16(*one) for one in zip(full.layers, full.weights, strict=True)])
    crop = np.random.default_rng(_SEED).standard_normal((1, *spec.input_shape)).astype(np.float32)
    outputs, halved = _forward(full, spec, crop, source), _forward(half, spec, crop, source)
    given = [one.reshape(other.shape) for one, other in zip(_as_given(taken, crop, source), outputs, strict=True)]
    common = {"layers": dict(Counter(layer.type for layer in full.layers).most_common()), "seed": _SEED}
    records = {}
    for weights, model, files, reference, found in (
        ("fp32", full, fp32, given, outputs),
        ("fp16", half, fp16, outputs, halved),
    ):
        minimum = MIN_SQNR_DB[weights]
        difference = require_same(reference, found, minimum, f"{source.param}: import with weights in {weights}")
        model.write(*files)
        records[weights] = {
            "reference": source.param.name if weights == "fp32" else fp32[0].name,
            "changes": taken.changes,
            **verification(difference, crop, minimum),
            "weights": weights,
            **common,
            "sha256": hashes(*files),
            "versions": versions("ncnn"),
        }
    return records


def layers_table(layers: dict[str, int]) -> "DataFrame":
    """Return a table of the layers of a network, by type: `ncnn_layer`, `count`, `int8` (yes, no)."""
    from pandas import DataFrame

    return DataFrame(
        {"ncnn_layer": name, "count": count, "int8": "yes" if name in INT8_LAYERS else "no"}
        for name, count in layers.items()
    )


@dataclass(frozen=True)
class Taken:
    """A network that was taken in.

    Attributes:
        model: as the steps behind want it.
        input: the name of its input in the user's file.
        outputs: those of its outputs there.
        part: what the user's file has between them; None where ncnn can load all that it has.
        changes: what was changed, in words.
    """

    model: NcnnModel
    input: str
    outputs: list[str]
    part: NcnnModel | None
    changes: list[str]


def taken_in(source: Source, wanted: int) -> Taken:
    """Return a user's network as the steps behind want it.

    Args:
        source: the user's files.
        wanted: how many outputs are decoded.

    Raises:
        InputError: as `import_ncnn`, as far as that is seen in the files.
    """
    model = read_source(source)
    try:
        ends = input_of(model.layers, source.input), outputs_of(model.layers, source.outputs, wanted)
        given = cut(model, *ends)
        _require_float_and_known(given.layers)
        part = named_as_pnnx_does(given, *ends)
        halves = sum(any(array.dtype == np.float16 for array in weights.values()) for weights in part.weights)
        layers = [_as_binary(_with_old_arrays(layer)) for layer in part.layers]
        part = NcnnModel(layers, [_in_float32(one) for one in part.weights])
        part, folded = fold(part, [f"out{place}" for place in range(wanted)])
    except InputError as error:
        raise InputError(f"{source.param}: {error}") from error
    changes = [f"blob {name} called in0" for name in ends[:1] if name != "in0"]
    changes += [f"blob {name} called out{place}" for place, name in enumerate(ends[1]) if name != f"out{place}"]
    if left := len(model.layers) - len(part.layers) - sum(folded.values()):
        changes.append(f"{left} layers left out that the outputs do not need")
    if halves:
        changes.append(f"weights of {halves} layers in float32, not float16")
    changes += [f"{count} {name} folded into the layers before them" for name, count in folded.items()]
    return Taken(part, *ends, None if all(ncnn_has_layer(layer.type) for layer in model.layers) else given, changes)


def read_source(source: Source) -> NcnnModel:
    """Return a user's network as its files have it; `InputError` where they are damaged, or ncnn lacks a layer."""
    try:
        return NcnnModel.read(source.param, source.bin)
    except InputError as error:
        # Where pnnx leaves operators, it doubles names; and what weights they have, nobody knows.
        lines = source.param.read_text(errors="replace").splitlines()[2:] if source.param.is_file() else []
        for type_, name, *_ in (line.split() for line in lines if len(line.split()) > 1):
            if not ncnn_has_layer(type_):
                raise InputError(f"{str(error).rstrip('.')}. {_lacking(type_, name)}") from error
        raise


def _lacking(type_: str, name: str) -> str:
    return (
        f"ncnn has no layer of type {type_}, which '{name}' is. Replace it in the network, or name blobs before it by "
        "the key 'outputs' if it only post-processes the heatmaps."
    )


def _require_float_and_known(layers: Sequence[Layer]) -> None:
    for layer in layers:
        if not ncnn_has_layer(layer.type):
            raise InputError(_lacking(layer.type, layer.name))
        if layer.int8_term:
            raise InputError(f"layer {layer.name} is INT8 already. Give the float network that it was made of.")
        # Older ncnn put the channels last here; today's leaves them where they are, without a word.
        if layer.type == "Reshape" and layer.integer(_PERMUTE):
            raise InputError(
                f"layer {layer.name} is a Reshape that permutes ({_PERMUTE}=1), which ncnn no longer does. Convert the "
                "network again with today's tools."
            )


def _with_old_arrays(layer: Layer) -> Layer:
    """Return a layer whose arrays are all written with a length before them, as every version of ncnn reads them."""
    params: dict[int, str] = {}
    for key, text in layer.params.items():
        values = text.rstrip(",").split(",")
        is_new = key > array_key(0) and "," in text and all(map(_is_number, values))
        params |= {array_key(key): ",".join([str(len(values)), *values])} if is_new else {key: text}
    return replace(layer, params=params)


def _as_binary(layer: Layer) -> Layer:
    """Return a product, sum or maximum of two blobs as the layer by which recipes know it."""
    if layer.type != "Eltwise" or len(layer.bottoms) != 2 or layer.reals(1) or layer.integer(0) not in _BINARY:
        return layer
    return replace(layer, type="BinaryOp", params={0: str(_BINARY[layer.integer(0)])})


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _in_float32(weights: Weights) -> Weights:
    return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in weights.items()}


def _in_float16(layer: Layer, weights: Weights) -> Weights:
    """Return the weights of a layer in float16 where the `.bin` can say so and float16 can hold them."""
    found = dict(weights)
    for slot in weight_slots(layer):
        if slot.tagged and np.abs(weights[slot.name]).max(initial=0) <= np.finfo(np.float16).max:
            found[slot.name] = weights[slot.name].astype(np.float16)
    return found


def _forward(model: NcnnModel, spec: ModelSpec, crop: Tensor, source: Source) -> list[Tensor]:
    """Run the network as it was taken in on a crop (1, 3, H, W)."""
    from posequant.networks.ncnn import NcnnNetwork

    with tempfile.TemporaryDirectory() as folder:
        param, bin_ = Path(folder, source.param.name), Path(folder, source.bin.name)
        model.write(param, bin_)

        def run() -> list[Tensor]:
            network = NcnnNetwork(param, bin_, "fp32", spec.input_shape, spec.output_shapes)
            return network.forward_on_threads(crop, 1)

        with named_as(param, source.param), named_as(bin_, source.bin):
            return _tried(source, run)


def _tried(source: Source, work: Callable[[], list[Tensor]]) -> list[Tensor]:
    """Return what `work` does, once it is known not to crash."""
    if crash := crash_of(work):
        raise InputError(
            f"{source.param}: {crash}. Replace that layer, name blobs before it by the key 'outputs', or convert the "
            "network again with today's tools."
        )
    return work()


def _as_given(taken: Taken, crop: Tensor, source: Source) -> list[Tensor]:
    """Run the user's files, as they are, on a crop (1, 3, H, W); return the outputs as ncnn shapes them."""
    from posequant.networks.ncnn import load_net, to_mat

    def run(param: Path, bin_: Path) -> list[Tensor]:
        with doing(f"ran {source.param} as it is in ncnn"):
            net = load_net(param, bin_, "fp32")
            extractor = net.create_extractor()
            extractor.input(taken.input, to_mat(crop[0]))
            outputs = []
            for name in taken.outputs:
                status, mat = extractor.extract(name)
                # An array made of an empty Mat is a segmentation fault.
                if status != 0 or mat.empty():
                    raise InputError(f"{source.param}: ncnn fails to compute blob '{name}' as the file is.")
                outputs.append(np.array(mat))
        return outputs

    if taken.part is None:
        return _tried(source, partial(run, source.param, source.bin))
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "part.param"), Path(folder, "part.bin")
        taken.part.write(*files)
        return _tried(source, partial(run, *files))
