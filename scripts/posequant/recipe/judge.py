"""What a draft is worth: the real INT8 network on some people, beside the float network, and its price."""

from collections.abc import Sequence

import numpy as np

from posequant.base.model_spec import ModelSpec
from posequant.base.timing import time_in_turn
from posequant.data.crop_files import People
from posequant.evaluate.yardstick import Yardstick
from posequant.ncnn_format.model import NcnnModel, encode_weights
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import describe_layers
from posequant.quantize.ncnn2int8 import quantize
from posequant.quantize.weights import quantizable
from posequant.recipe.draft import Draft, Floats, Rung
from posequant.recipe.precision import PrecisionLoss
from posequant.recipe.score import Draws, Evidence, Score, scores

# How long a network is timed: so many crops, or fewer in so many seconds.
_ROUNDS, _SECONDS = 40, 6.0


class Panel:
    """Some people on whom INT8 networks are measured beside the float network."""

    def __init__(
        self,
        spec: ModelSpec,
        network: NcnnNetwork,
        crops: Floats,
        people: People,
        threads: int,
        *,
        labelled: bool = True,
    ) -> None:
        """Run the float network.

        Args:
            spec: its description.
            network: the float network.
            crops: of N people, float32 (N, 3, H, W).
            people: who they are.
            threads: how many crops are computed at a time.
            labelled: whether AP is measured, too, by the people's labels.
        """
        self.crops, self._threads = crops, threads
        self._yardstick = Yardstick(spec, people, network.forward_on_threads(crops, threads))
        self._draws = Draws.of(people.image_ids)
        poses = self._yardstick.keypoints, self._yardstick.scores
        self._precision = PrecisionLoss(people, *poses, self._draws.drawn) if labelled else None

    def evidence(self, network: NcnnNetwork) -> Evidence:
        """Measure a network on these people."""
        outputs = network.forward_on_threads(self.crops, self._threads)
        keypoints, confidences = self._yardstick.decode(outputs)
        return Evidence(
            powers=self._yardstick.powers(outputs),
            oks=self._yardstick.shift(keypoints).oks,
            ap_losses=self._precision(keypoints, confidences) if self._precision else None,
        )

    def scores(self, evidence: Sequence[Evidence]) -> list[Score]:
        """Return what networks lose that were measured on these people, by the evidence of all of them."""
        return scores(evidence, self._draws)


class Judge:
    """Measures drafts on the people that decide. All are timed in turn with the first that it measured.

    Attributes:
        people: how many they are.
        network: the float network.
        macs: multiply-accumulate operations of each layer with weights for one crop, by name; of the layers that the
            last measured draft has.
    """

    def __init__(
        self, spec: ModelSpec, model: NcnnModel, crops: Floats, people: People, threads: int, *, labelled: bool = True
    ) -> None:
        """Run the float network `model`; the other arguments are those of `Panel`."""
        self._spec, self.people = spec, len(crops)
        self.network = NcnnNetwork.of(model, "fp32", spec.input_shape, spec.output_shapes)
        self.macs = {record.name: record.macs for record in describe_layers(model, self.network)}
        self._panel = Panel(spec, self.network, crops, people, threads, labelled=labelled)
        self._first: NcnnNetwork | None = None
        self._first_milliseconds = 0.0

    def measure(self, draft: Draft, step: str) -> Rung:
        """Quantize a draft and measure the INT8 network.

        Args:
            draft: the draft, with all scales.
            step: what is new in it, in words.
        """
        model = quantize(draft.model, draft.table)
        network = NcnnNetwork.of(model, "int8", self._spec.input_shape, self._spec.output_shapes)
        if not self.macs.keys() >= {layer.name for layer in quantizable(model.layers)}:
            # A step wrote layers as others.
            self.macs = {record.name: record.macs for record in describe_layers(model, network)}
        return Rung(
            step=step,
            keep_float=[layer.name for layer in draft.model.layers if layer.name in draft.keep_float],
            evidence=self._panel.evidence(network),
            megabytes=sum(len(encode_weights(*pair)) for pair in zip(model.layers, model.weights, strict=True)) / 1e6,
            milliseconds=self._milliseconds(network),
        )

    def scores(self, rungs: Sequence[Rung]) -> list[Score]:
        """Return what the networks of all rungs lose; what is expected of one depends on which others there are."""
        return self._panel.scores([rung.evidence for rung in rungs])

    def _milliseconds(self, network: NcnnNetwork) -> float:
        """Return the time of one crop on one thread: that of the first network by the ratio of the two."""
        first, crops = self._first or network, self._panel.crops

        def run(timed: NcnnNetwork, number: int) -> None:
            place = number % len(crops)
            timed.forward(crops[place : place + 1])

        times = time_in_turn(
            [lambda number: run(network, number), lambda number: run(first, number)],
            warm_up=2,
            rounds=_ROUNDS,
            minimum_rounds=5,
            seconds=_SECONDS,
        )
        if self._first is None:
            self._first, self._first_milliseconds = network, 1000 * float(np.median(times))
            return self._first_milliseconds
        return self._first_milliseconds * float(np.median(times[:, 0] / times[:, 1]))
