"""What a layer gives at each position of its map, and how much each position counts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from posequant.ncnn_format.model import ACTIVATION, ACTIVATION_VALUES, Layer, array_key
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.propagation import Visit

Floats = NDArray[np.float32]


def by_channel(output: Floats) -> Floats:
    """Return a layer's output as (C, P): channels by positions.

    Args:
        output: float32, a map (C, H, W), rows (P, C) or a vector (C,).
    """
    if output.ndim == 3:
        return output.reshape(len(output), -1)
    return np.atleast_2d(output).T


def position_weights(outputs: Sequence[Floats]) -> list[Floats]:
    """Return how much each position counts when a layer's outputs are compared: less where its values are large.

    An error counts as a share of what is there, 1 / (|y|² + mean |y|²). Plain squared errors are ruled by the few
    positions where a network runs into extremes, such as the border of a crop that reaches out of its image. What is
    behind them ignores how extreme they are; measured on SimplePose: docs/quantization.md.

    Args:
        outputs: of the float layer, N arrays as for `by_channel`.

    Returns:
        N arrays of float32 (P,); all of them add up to 1.
    """
    powers = [np.square(by_channel(output)).sum(axis=0) for output in outputs]
    mean = max(float(np.mean([power.mean() for power in powers])), np.finfo(np.float32).tiny)
    weights = [1 / (power + mean) for power in powers]
    total = sum(float(weight.sum(dtype=np.float64)) for weight in weights)
    return [(weight / total).astype(np.float32) for weight in weights]


def without_activation(layer: Layer) -> Layer:
    """Return a layer without the activation that ncnn fused to it."""
    fused = ACTIVATION, array_key(ACTIVATION_VALUES)
    return replace(layer, params={key: value for key, value in layer.params.items() if key not in fused})


def before_activation(visit: Visit) -> list[Floats]:
    """Return what a float layer gives before its activation, for each crop on the way."""
    plain = without_activation(visit.layer)
    if plain == visit.layer:
        return visit.outputs
    network = LayerNetwork(plain, visit.weights)
    return [outputs[0] for outputs in visit.each(network.run, [[values] for values in visit.inputs])]


def passed_on(layer: Layer, values: Floats) -> NDArray[np.bool_]:
    """Return where the activation that is fused to a layer lets values through, rather than to cut them off.

    Only a ReLU and a clip cut off; any other activation passes all values on, changed.

    Args:
        layer: the layer.
        values: what it gives before its activation, float32 of any shape.
    """
    match layer.integer(ACTIVATION):
        case 1:
            return values > 0
        case 3:
            least, greatest = layer.reals(ACTIVATION_VALUES)
            return (values > least) & (values < greatest)
    return np.ones(values.shape, np.bool_)
