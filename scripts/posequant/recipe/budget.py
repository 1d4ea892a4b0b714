"""The step `budget`: as few layers as a budget allows stay in float, chosen by what they cost and what they buy."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posequant.attribution.effect import Effect, Yardstick
from posequant.errors import InputError
from posequant.model_spec import ModelSpec
from posequant.ncnn_model import NcnnModel, encode_weights
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize_ncnn import quantize
from posequant.recipe.bias import correct_bias
from posequant.recipe.draft import Draft, Floats, Rung
from posequant.recipe.output_error import errors_alone
from posequant.timing import time_in_turn

# Crops on which the layers' errors are compared; the budget is held on all that decide.
CROPS_ALONE = 16
# Rungs are tried at these numbers of layers in float, beside the depthwise ones.
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_ROUNDS, _SECONDS = 40, 6.0


@dataclass(frozen=True)
class Judge:
    """What decides: people whom no other step has seen, and how far their poses may move.

    Attributes:
        spec: the network's description.
        crops: of these people, float32 (N, 3, H, W).
        yardstick: the float network's outputs for them.
    """

    spec: ModelSpec
    crops: Floats
    yardstick: Yardstick

    @classmethod
    def of(cls, spec: ModelSpec, model: NcnnModel, crops: Floats, threads: int) -> "Judge":
        """Run the float network on the crops."""
        with loaded(model, "fp32", spec) as network:
            outputs = _forward(network, crops, threads)
        return cls(spec, crops, Yardstick(spec, [np.stack(values) for values in outputs]))

    def measure(self, draft: Draft, threads: int) -> Effect:
        """Quantize a draft and measure the real INT8 network on the people that decide."""
        with loaded(quantize(draft.model, draft.table), "int8", self.spec) as network:
            return self.yardstick.measure(_forward(network, self.crops, threads))


def hold_budget(draft: Draft, crops: Sequence[Floats], threads: int, *, oks_loss: float, judge: Judge) -> Draft:
    """Keep just so many layers in float that INT8 moves poses by no more than the budget.

    A ladder of sets is climbed until the real INT8 network holds the budget. Its first rung has no further layer in
    float, the second all depthwise convolutions, which ncnn computes about as fast in float. Then come the others,
    those first that cause most error at the output, each alone. (By the error for the work, cheap layers that cause
    little come before the one that rules, and the sets that hold a budget are dearer: seen on SimplePose.) Nothing that
    is timed decides, so the choice is the same in every run. Biases are corrected anew for each set.

    Args:
        draft: the draft, with all scales.
        crops: those for the biases, float32 (3, H, W); the first `CROPS_ALONE` tell the layers' errors.
        threads: how many crops are computed at a time.
        oks_loss: the budget, 1 - mean OKS to the float network's poses.
        judge: decides whether it is held.

    Returns:
        The draft, with all rungs that were tried. Where none holds the budget, the one with the least loss is taken,
        and a notice is printed.

    Raises:
        InputError: the float network is sure of no keypoint of the people that decide.
    """
    rungs: list[Rung] = []
    candidates: list[Draft] = []
    losses: list[float] = []
    for step, kept in ladder(draft, crops[:CROPS_ALONE], threads):
        candidate = correct_bias(_with_float_layers(draft, kept), crops, threads)
        effect = judge.measure(candidate, threads)
        if effect.oks_loss is None:
            raise InputError("the float network finds no keypoint in the crops that decide. Calibrate on other people.")
        candidates.append(candidate)
        losses.append(effect.oks_loss)
        rungs.append(Rung(step, _ordered(candidate), effect.oks_loss, effect.sqnr_db, _megabytes(candidate)))
        print(f"{step}: OKS loss {effect.oks_loss:.4f}, budget {oks_loss:g}", file=sys.stderr)
        if effect.oks_loss <= oks_loss:
            return replace(candidate, rungs=_timed(rungs, candidates, judge))
    best = min(range(len(rungs)), key=lambda number: losses[number])
    print(
        f"notice: no set of layers holds the budget of {oks_loss:g}; the best is taken: {rungs[best].step}",
        file=sys.stderr,
    )
    return replace(candidates[best], rungs=_timed(rungs, candidates, judge))


def _with_float_layers(draft: Draft, names: frozenset[str]) -> Draft:
    """Return the draft with layers in float, as the float network has them: nothing is rounded in them any more."""
    return replace(draft, keep_float=names).with_weights({name: draft.reference.named(name)[1] for name in names})


def ladder(draft: Draft, crops: Sequence[Floats], threads: int) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield ever larger sets of layers to keep in float, each with what is new in it, in words."""
    yield "as before", draft.keep_float
    kept = draft.keep_float
    depthwise = [layer.name for layer in draft.layers if layer.type == "ConvolutionDepthWise"]
    if 0 < len(depthwise) < len(draft.names):
        kept = kept | set(depthwise)
        yield f"{len(depthwise)} depthwise layers in float", kept
    alone = errors_alone(draft, crops, threads)
    others = [layer.name for layer in draft.layers if layer.name not in kept]
    order = sorted(others, key=alone.__getitem__, reverse=True)
    before = 0
    for count in STEPS:
        if count < len(order):
            yield f"{', '.join(order[before:count])} in float", kept | set(order[:count])
            before = count


@contextmanager
def loaded(model: NcnnModel, precision: str, spec: ModelSpec) -> Iterator[NcnnNetwork]:
    """Load a model that is in memory; its files, which it may be read from, are there while the context is."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "model.param"), Path(folder, "model.bin")
        model.write(*files)
        yield NcnnNetwork(*files, precision, spec.input_shape, spec.output_shapes)


def _forward(network: NcnnNetwork, crops: Floats, threads: int) -> list[list[Floats]]:
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda crop: network.forward(crop[np.newaxis]), crops))
    return [[outputs[index][0] for outputs in found] for index in range(len(network.output_names))]


def _timed(rungs: Sequence[Rung], drafts: Sequence[Draft], judge: Judge) -> tuple[Rung, ...]:
    """Time each rung in turn with the first, whose median all times are told by."""
    with loaded(quantize(drafts[0].model, drafts[0].table), "int8", judge.spec) as first:
        timed = []
        base = None
        for rung, draft in zip(rungs, drafts, strict=True):
            with loaded(quantize(draft.model, draft.table), "int8", judge.spec) as other:
                times = time_in_turn(
                    lambda number, network=other: network.forward(_crop(judge, number)),  # type: ignore[misc]
                    lambda number: first.forward(_crop(judge, number)),
                    warm_up=2,
                    rounds=_ROUNDS,
                    minimum_rounds=5,
                    seconds=_SECONDS,
                )
            base = base or 1000 * float(np.median(times[:, 1]))
            timed.append(replace(rung, milliseconds=base * float(np.median(times[:, 0] / times[:, 1]))))
    return tuple(timed)


def _crop(judge: Judge, number: int) -> Floats:
    place = number % len(judge.crops)
    return judge.crops[place : place + 1]


def _ordered(draft: Draft) -> list[str]:
    return [layer.name for layer in draft.model.layers if layer.name in draft.keep_float]


def _megabytes(draft: Draft) -> float:
    model = quantize(draft.model, draft.table)
    return sum(len(encode_weights(*pair)) for pair in zip(model.layers, model.weights, strict=True)) / 1e6
