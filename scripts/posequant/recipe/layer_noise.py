"""How much noise in a network's outputs is due to each of its layers."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posequant.base.signal import Powers
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.ncnn2int8 import quantize
from posequant.recipe.draft import Draft, Floats
from posequant.recipe.positions import by_channel, position_weights

# Standard errors within which chance is not told from what is there: a few crops make most of the noise, and of many
# layers some are further off than two.
_STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Relief:
    """What is gone of an INT8 network's noise when one layer is in float.

    Attributes:
        share: of all noise; below 0 where more is left.
        standard_error: of that, over the crops.
    """

    share: float
    standard_error: float


def estimated(alone: float, found: Relief) -> float:
    """Return what is nearest to a layer's noise `alone` and no further from its relief than chance allows.

    It is a quarter of the noise alone at least, so that no layer is passed over for ever.

    Args:
        alone: the layer's noise alone, as a share of the network's.
        found: its relief.
    """
    reach = _STANDARD_ERRORS * found.standard_error
    return max(min(max(alone, found.share - reach), found.share + reach), alone / 4)


def noise_alone(draft: Draft, crops: Sequence[Floats], threads: int) -> dict[str, float]:
    """Return the noise by signal at the outputs when one layer alone is in INT8, for each layer in INT8 by name.

    Where biases were corrected, the mean error of each channel is left out: they take it off, and they were corrected
    for the errors of other layers, too, which are not there.

    Args:
        draft: the draft, with all scales.
        crops: float32 (3, H, W).
        threads: how many crops are computed at a time.
    """
    network = NcnnNetwork.of(draft.reference, "fp32", crops[0].shape)
    layers = {layer.name: LayerNetwork(*draft.quantized(layer)) for layer in draft.in_int8}
    wanted = [list(network.activations(crop, network.output_names)) for crop in crops]
    _, each = _swapped(
        draft.reference, network, layers, crops, wanted=wanted, threads=threads, keep_means=draft.biases_corrected
    )
    return {name: Powers.total(powers).ratio for name, powers in each.items()}


def relief(
    draft: Draft, crops: Sequence[Floats], names: Collection[str], threads: int
) -> tuple[float, dict[str, Relief]]:
    """Return what is gone of the noise of the INT8 network as it is, when one layer alone is back in float.

    Rounding in all later layers falls out in another way when one layer changes. So of an early layer this says little
    unless it causes much of the noise, and the standard error says how little. Where biases were corrected, the layer
    in float has the mean of each channel that it had in INT8: those of later layers were corrected for that.

    Args:
        draft: the draft, with all scales.
        crops: float32 (3, H, W).
        names: the layers to look at; each is in INT8.
        threads: how many crops are computed at a time.

    Returns:
        Noise by signal of the INT8 network; and for each layer what is gone of it.
    """
    float_network = NcnnNetwork.of(draft.reference, "fp32", crops[0].shape)
    # A layer that hands on INT8 has no float output to put another one in the place of.
    model = quantize(draft.model, draft.table, draft.keep_float, requantize=False)
    network = NcnnNetwork.of(model, "int8", crops[0].shape)
    layers = {name: LayerNetwork(*draft.reference.named(name)) for name in names}
    wanted = [list(float_network.activations(crop, float_network.output_names)) for crop in crops]
    whole, each = _swapped(
        model, network, layers, crops, wanted=wanted, threads=threads, keep_means=draft.biases_corrected
    )
    total = Powers.total(whole)

    def gone(powers: Sequence[Powers]) -> Relief:
        differences = np.array([one.noise - other.noise for one, other in zip(whole, powers, strict=True)])
        noise = max(total.noise, 1e-300)
        deviation = float(np.std(differences, ddof=1)) if len(crops) > 1 else math.inf
        return Relief(float(differences.sum()) / noise, deviation * math.sqrt(len(crops)) / noise)

    return total.ratio, {name: gone(powers) for name, powers in each.items()}


def _swapped(
    model: NcnnModel,
    network: NcnnNetwork,
    others: Mapping[str, LayerNetwork],
    crops: Sequence[Floats],
    *,
    wanted: Sequence[Sequence[Floats]],
    threads: int,
    keep_means: bool,
) -> tuple[list[Powers], dict[str, list[Powers]]]:
    """Return the noise of a network, and that with one of its layers in the place of which is another.

    Each crop goes through the network once; for each layer the rest of the network is computed from there on.

    Args:
        model: the network's layers.
        network: the same, loaded; the output of each layer is float.
        others: what to put in the place of a layer, by its name.
        crops: N crops.
        wanted: the outputs that are right, of each crop.
        threads: how many crops are computed at a time; nothing else depends on it.
        keep_means: whether the mean of each channel, as `mean_difference` takes it, stays that of the layer that is
            replaced.

    Returns:
        Of each crop, the powers of all outputs; and the same for each layer that is replaced, by its name.
    """
    needed = _read_from_layers_on(model, others.keys())
    blobs = [top for layer in model.layers for top in layer.tops if top in needed]
    names = [layer.name for layer in model.layers if layer.name in others]

    def passed(crop: Floats, alive: dict[str, Floats]) -> Iterator[tuple[str, str, Floats, Floats]]:
        """Yield the name, the output's blob, the output and the other output of each layer that is replaced.

        `alive` has what later layers, or nobody, reads of all that was made before; after the last layer the outputs.
        """
        values = network.activations(crop, blobs)
        for layer in model.layers:
            # A blob has one reader.
            inputs = [alive.pop(blob) for blob in layer.bottoms if blob in needed]
            made = {top: next(values) for top in layer.tops if top in needed}
            if layer.name in others:
                ((top, output),), (other,) = made.items(), others[layer.name].run(inputs)
                yield layer.name, top, output, other
            alive.update(made)

    def differences(crop: Floats) -> list[NDArray[np.float64]]:
        return [mean_difference(output, other) for _, _, output, other in passed(crop, {})]

    def powers(outputs: Sequence[Floats], wants: Sequence[Floats]) -> Powers:
        return Powers.total([Powers.of(want, output) for want, output in zip(wants, outputs, strict=True)])

    def measure(number: int) -> list[Powers]:
        found, alive = [], dict[str, Floats]()
        for name, top, _, other in passed(crops[number], alive):
            output = (other + shifts[name]).astype(np.float32) if keep_means else other
            found.append(powers(network.resume({**alive, top: output}), wanted[number]))
        return [powers([alive[name] for name in network.output_names], wanted[number]), *found]

    with ThreadPoolExecutor(threads) as pool:
        if keep_means:
            means = [np.mean(rows, axis=0) for rows in zip(*pool.map(differences, crops), strict=True)]
            shifts = dict(zip(names, means, strict=True))
        results = pool.map(measure, range(len(crops)))
        rows = list(tqdm(results, total=len(crops), desc="layers", unit="crop", mininterval=2))
    whole, *each = ([row[place] for row in rows] for place in range(1 + len(names)))
    return whole, dict(zip(names, each, strict=True))


def _read_from_layers_on(model: NcnnModel, names: Collection[str]) -> set[str]:
    """Return the blobs that one of the layers `names` reads or makes or that are alive beside it, and the outputs."""
    alive: set[str] = set()
    found: set[str] = set()
    for layer in model.layers:
        beside = alive | set(layer.tops)
        if layer.name in names:
            found |= beside
        alive = beside - set(layer.bottoms)
    return found | alive


def mean_difference(output: Floats, other: Floats) -> NDArray[np.float64]:
    """Return what each channel of an output has more than that of another, on average, as an array to add to that.

    Positions count as for a bias that is corrected: else a few extremes would shift all others.
    """
    (counts,) = position_weights([output])
    means: NDArray[np.float64] = (by_channel(output - other) * counts).sum(axis=1, dtype=np.float64)
    return means if output.ndim < 3 else means.reshape(-1, *(1,) * (output.ndim - 1))
