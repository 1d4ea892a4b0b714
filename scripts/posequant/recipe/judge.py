"""What a draft is worth: the real INT8 network on some people, beside the float network, and its price."""

import math
from collections.abc import Mapping, Sequence
from time import thread_time

import numpy as np

from posequant.base.model_spec import ModelSpec
from posequant.base.signal import Powers
from posequant.base.timing import time_in_turn
from posequant.data.crop_files import People
from posequant.evaluate.yardstick import Yardstick
from posequant.ncnn_format.model import NcnnModel, encode_weights
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layers import describe_layers
from posequant.recipe.draft import Draft, Floats, Rung
from posequant.recipe.precision import PrecisionLoss
from posequant.recipe.score import Draws, Evidence, Score, scores

# How long a network is timed: so many crops, or fewer in so many seconds. On a busy machine the median ratio of 20
# rounds has a standard deviation of 2% by the thread's own processor time, of 14% by the wall clock.
_ROUNDS, _SECONDS = 20, 3.0


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
            labelled: whether AP is measured, too, or PCK without sigmas, by the people's labels.
        """
        self.crops, self._threads = crops, threads
        self._yardstick = Yardstick(spec, people, network.forward_on_threads(crops, threads))
        self._draws = Draws.of(people.image_ids)
        poses = self._yardstick.keypoints, self._yardstick.scores
        self._precision = PrecisionLoss(people, *poses, self._draws.drawn, spec.keypoints) if labelled else None

    def evidence(self, network: NcnnNetwork) -> Evidence:
        """Measure a network on these people."""
        outputs = network.forward_on_threads(self.crops, self._threads)
        keypoints, confidences = self._yardstick.decode(outputs)
        return Evidence(
            powers=self._yardstick.powers(outputs),
            oks=self._yardstick.shift(keypoints).oks,
            ap_losses=self._precision(keypoints, confidences) if self._precision else None,
        )

    def sqnr_db(self, network: NcnnNetwork) -> float:
        """Return the SQNR of a network's outputs in dB, infinite where they are the float network's."""
        decibels = Powers.total(self._yardstick.powers(network.forward_on_threads(self.crops, self._threads))).sqnr_db
        return math.inf if decibels is None else decibels

    def scores(self, evidence: Sequence[Evidence]) -> list[Score]:
        """Return what networks lose that were measured on these people, by the evidence of all of them."""
        return scores(evidence, self._draws)


class Judge:
    """Measures drafts on the people that decide. All are timed in turn with the first that it measured.

    Attributes:
        people: how many they are.
        network: the float network.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: NcnnModel,
        crops: Floats,
        people: People,
        threads: int,
        *,
        labelled: bool = True,
        timed: bool = True,
    ) -> None:
        """Run the float network `model`.

        Args:
            spec: as the others, as for `Panel`.
            model: the float network.
            crops: of N people.
            people: who they are.
            threads: how many crops are computed at a time.
            labelled: whether AP is measured, too.
            timed: whether networks are timed.
        """
        self._spec, self.people = spec, len(crops)
        self.network = NcnnNetwork.of(model, "fp32", spec.input_shape, spec.output_shapes)
        self._panel = Panel(spec, self.network, crops, people, threads, labelled=labelled)
        self._timed = timed
        self._first: NcnnNetwork | None = None
        self._first_milliseconds = 0.0
        self._described: NcnnModel | None = None
        self._macs: dict[str, int] = {}

    def macs(self, draft: Draft) -> Mapping[str, int]:
        """Return the multiply-accumulate operations of each layer with weights, by name.

        They are those of the draft's own float network, which a step may have rewritten.
        """
        if self._described is not draft.reference:
            network = NcnnNetwork.of(draft.reference, "fp32", self._spec.input_shape, self._spec.output_shapes)
            self._described = draft.reference
            self._macs = {record.name: record.macs for record in describe_layers(draft.reference, network)}
        return self._macs

    def work(self, draft: Draft) -> Mapping[str, float]:
        """Return the share that each layer with weights has of the float network's work, by name."""
        macs = self.macs(draft)
        return {name: number / sum(macs.values()) for name, number in macs.items()}

    def measure(self, draft: Draft, step: str) -> Rung:
        """Quantize a draft and measure the INT8 network.

        Args:
            draft: the draft, with all scales.
            step: what is new in it, in words.
        """
        model = draft.int8
        network = NcnnNetwork.of(model, "int8", self._spec.input_shape, self._spec.output_shapes)
        work = self.work(draft)
        return Rung(
            step=step,
            keep_float=[layer.name for layer in draft.model.layers if layer.name in draft.keep_float],
            evidence=self._panel.evidence(network),
            int8_work=math.fsum(work.get(layer.name, 0.0) for layer in draft.in_int8),
            megabytes=sum(len(encode_weights(*pair)) for pair in zip(model.layers, model.weights, strict=True)) / 1e6,
            milliseconds=self._milliseconds(network) if self._timed else None,
        )

    def sqnr_db(self, draft: Draft) -> float:
        """Return the SQNR of the outputs of a draft's INT8 network in dB. Nothing is timed."""
        return self._panel.sqnr_db(NcnnNetwork.of(draft.int8, "int8", self._spec.input_shape, self._spec.output_shapes))

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
            clock=thread_time,
        )
        if self._first is None:
            self._first, self._first_milliseconds = network, 1000 * float(np.median(times))
            return self._first_milliseconds
        return self._first_milliseconds * float(np.median(times[:, 0] / times[:, 1]))
