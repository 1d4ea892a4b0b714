"""The step `correct-bias`: what quantization adds to each channel on average is taken off its bias."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from posequant.ncnn_format.model import Layer, Weights
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.propagation import Visit, propagate
from posequant.recipe.draft import Draft, Floats
from posequant.recipe.positions import by_channel, position_weights, without_activation
from posequant.workflow.settings.recipe import CorrectBiasStep


def correct_bias(draft: Draft, crops: Sequence[Floats], threads: int, settings: CorrectBiasStep) -> Draft:
    """Correct the biases layer by layer, each for what the corrected INT8 layers before it give.

    The mean error of each channel before its activation is measured from real INT8 outputs and subtracted (Nagel and
    others: Data-Free Quantization through Weight Equalization and Bias Correction, 2019, section 4.2, and appendix D
    for the empirical form). Positions count as in `position_weights`. A layer without a bias stays as it is.

    Args:
        draft: the draft, with all scales.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time.
        settings: how many of the crops are looked at.
    """
    changed: dict[str, Weights] = {}

    def correct(visit: Visit) -> tuple[Layer, Weights]:
        layer, weights = draft.quantized(visit.layer)
        if "bias" in weights:
            bias = (weights["bias"] + mean_error(visit, layer, weights)).astype(np.float32)
            changed[layer.name] = {"bias": bias}
            weights = {**weights, "bias": bias}
        return layer, weights

    propagate(draft.reference, crops[: settings.crops], correct, draft.names, threads=threads, title="biases")
    return replace(draft.with_weights(changed), biases_corrected=True)


def mean_error(visit: Visit, layer: Layer, weights: Weights) -> NDArray[np.float64]:
    """Return what each channel of an INT8 layer lacks on average, before its activation, float64 (C,).

    Args:
        visit: the float layer, and what reaches it.
        layer: the layer in INT8.
        weights: its weights.
    """
    full = LayerNetwork(without_activation(visit.layer), visit.weights)
    int8 = LayerNetwork(without_activation(layer), weights)
    wanted = [outputs[0] for outputs in visit.each(full.run, [[values] for values in visit.inputs])]

    def lack(item: tuple[Floats, Floats, Floats]) -> NDArray[np.float64]:
        values, want, counts = item
        total: NDArray[np.float64] = (by_channel(want - int8.run([values])[0]) * counts).sum(axis=1, dtype=np.float64)
        return total

    total: NDArray[np.float64] = np.sum(
        visit.each(lack, zip(visit.reached, wanted, position_weights(wanted), strict=True)), axis=0
    )
    return total
