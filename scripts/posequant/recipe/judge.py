"""What a draft is worth: the real INT8 network on some people, beside the float network, and its price."""

import math

import numpy as np

from posequant.base.model_spec import ModelSpec
from posequant.base.timing import time_in_turn
from posequant.data.crop_files import Labels
from posequant.evaluate.yardstick import Effect, Yardstick
from posequant.ncnn_format.model import NcnnModel, encode_weights
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import describe_layers
from posequant.quantize.ncnn2int8 import quantize
from posequant.recipe.draft import Draft, Floats, Rung
from posequant.recipe.precision import PrecisionLoss

# How long a network is timed: so many crops, or fewer in so many seconds.
_ROUNDS, _SECONDS = 40, 6.0
# Noise by signal (10 dB) beyond which the loss of OKS no longer grows in proportion: nothing is learned there.
_MOST_AMPLITUDE = 10 ** (-10 / 20)


class Judge:
    """Measures drafts on some people. All are timed in turn with the first that it measured.

    Few keypoints that jump make most of a loss of OKS, so on few people that of one network against that of another is
    chance. But the loss is proportional to the amplitude of the noise in the outputs (docs/quantization.md has
    figures), which few people tell well. So what is expected of a network is its noise times what all networks that
    were measured say of the two: the sum of their losses by the sum of their amplitudes.

    Attributes:
        people: how many they are.
        macs: multiply-accumulate operations of each layer with weights for one crop, by name.
    """

    def __init__(
        self, spec: ModelSpec, model: NcnnModel, crops: Floats, threads: int, labels: Labels | None = None
    ) -> None:
        """Run the float network.

        Args:
            spec: its description.
            model: the network.
            crops: of the people, float32 (N, 3, H, W).
            threads: how many crops are computed at a time.
            labels: where the people's keypoints are; without, AP is not measured.
        """
        self._spec, self._crops, self._threads = spec, crops, threads
        self.people = len(crops)
        network = NcnnNetwork.of(model, "fp32", spec.input_shape, spec.output_shapes)
        outputs = network.forward_on_threads(crops, threads)
        self.macs = {record.name: record.macs for record in describe_layers(model, network, spec.input_shape)}
        self._yardstick = Yardstick(spec, outputs)
        self._precision = PrecisionLoss(labels, self._yardstick.keypoints, self._yardstick.scores) if labels else None
        self._first: NcnnNetwork | None = None
        self._first_milliseconds = 0.0
        self._losses = self._amplitudes = 0.0

    def measure(self, draft: Draft, step: str) -> Rung:
        """Quantize a draft and measure the INT8 network.

        Args:
            draft: the draft, with all scales.
            step: what is new in it, in words.
        """
        model = quantize(draft.model, draft.table)
        network = NcnnNetwork.of(model, "int8", self._spec.input_shape, self._spec.output_shapes)
        outputs = network.forward_on_threads(self._crops, self._threads)
        keypoints, scores = self._yardstick.decode(outputs)
        effect = self._yardstick.compare(outputs, keypoints)
        loss = self._precision(keypoints, scores) if self._precision else None
        return Rung(
            step=step,
            keep_float=[layer.name for layer in draft.model.layers if layer.name in draft.keep_float],
            oks_loss=effect.oks_loss,
            expected_oks_loss=self._expected(effect),
            ap_loss=loss.estimate if loss else None,
            ap_loss_interval=loss.interval if loss else None,
            sqnr_db=effect.sqnr_db,
            megabytes=sum(len(encode_weights(*pair)) for pair in zip(model.layers, model.weights, strict=True)) / 1e6,
            milliseconds=self._milliseconds(network),
        )

    def _expected(self, effect: Effect) -> float | None:
        if effect.oks_loss is None:
            return None
        amplitude = math.sqrt(effect.noise)
        if amplitude > _MOST_AMPLITUDE:
            return effect.oks_loss
        self._losses += effect.oks_loss
        self._amplitudes += amplitude
        return amplitude * self._losses / self._amplitudes if amplitude else 0.0

    def _milliseconds(self, network: NcnnNetwork) -> float:
        """Return the time of one crop on one thread: that of the first network by the ratio of the two."""
        first = self._first or network

        def run(timed: NcnnNetwork, number: int) -> None:
            place = number % len(self._crops)
            timed.forward(self._crops[place : place + 1])

        times = time_in_turn(
            lambda number: run(network, number),
            lambda number: run(first, number),
            warm_up=2,
            rounds=_ROUNDS,
            minimum_rounds=5,
            seconds=_SECONDS,
        )
        if self._first is None:
            self._first, self._first_milliseconds = network, 1000 * float(np.median(times))
            return self._first_milliseconds
        return self._first_milliseconds * float(np.median(times[:, 0] / times[:, 1]))
