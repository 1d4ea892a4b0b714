"""The step `budget`: as few layers as a budget allows stay in float, chosen by what they cost and what they buy."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from posequant.base.errors import InputError
from posequant.recipe.bias import correct_bias
from posequant.recipe.draft import Draft, Floats, Rung
from posequant.recipe.judge import Judge
from posequant.recipe.output_error import errors_alone
from posequant.workflow.settings.recipe import BudgetStep, CorrectBiasStep

# Crops on which the layers' errors are compared; the budget is held on all that decide.
CROPS_ALONE = 16
# Rungs are tried at these numbers of layers in float, beside the depthwise ones.
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# How many of the layers in float, those with the most work, are tried in INT8 again.
RETURNS = 8


@dataclass(frozen=True)
class Budget:
    """What INT8 may cost.

    Attributes:
        measure: what of a rung: `expected_oks_loss`, which needs no labels, or `ap_loss`.
        limit: the most that it may be.
    """

    measure: str
    limit: float

    @classmethod
    def of(cls, settings: BudgetStep) -> "Budget":
        """Return the budget that the settings of a step `budget` name."""
        limits = (("expected_oks_loss", settings.oks_loss), ("ap_loss", settings.ap_loss))
        return next(cls(measure, limit) for measure, limit in limits if limit is not None)

    def loss(self, rung: Rung) -> float:
        """Return what a rung costs; `InputError` where it cannot be measured."""
        loss: float | None = getattr(rung, self.measure)
        if loss is None:
            raise InputError(
                f"the people that decide do not tell the {self.measure}: the float network finds none of their "
                "keypoints, or they have no labels. Calibrate on other people."
            )
        return loss

    def holds(self, rung: Rung) -> bool:
        """Return whether a rung is within the budget."""
        return self.loss(rung) <= self.limit


def judged(draft: Draft, candidate: Draft, step: str, judge: Judge, *, undo: bool) -> Draft:
    """Return what a step made of a draft, with its rung.

    A step is undone where the network's outputs are worse for it, by their SQNR, which tells steps apart on fewer
    people than OKS or AP.

    Args:
        draft: as it was before the step.
        candidate: what the step made of it, with all scales.
        step: the step in words.
        judge: measures the candidate.
        undo: whether steps are undone.
    """
    rung = judge.measure(candidate, step)
    if undo and draft.rungs and _decibels(rung) < _decibels(draft.standing):
        print(f"notice: {step} makes the outputs worse and is undone", file=sys.stderr)
        return replace(draft, rungs=(*draft.rungs, replace(rung, undone=True)))
    return replace(candidate, rungs=(*draft.rungs, rung))


def hold_budget(draft: Draft, crops: Sequence[Floats], threads: int, budget: Budget, judge: Judge) -> Draft:
    """Keep just so many layers in float that INT8 costs no more than the budget.

    A ladder of sets is climbed until the real INT8 network holds the budget. Its first rung has all depthwise
    convolutions in float, which ncnn computes about as fast there. Then come the others, those first that cause most
    error at the output, each alone. (By the error for the work, cheap layers that cause little come before the one that
    rules, and the sets that hold a budget are dearer: seen on SimplePose.) Then the layers with the most work are tried
    in INT8 again, one by one, and stay there if the budget still holds. Nothing that is timed decides, so the choice is
    the same in every run. Biases that a step corrected are corrected further for each set.

    Args:
        draft: the draft, with all scales, and judged.
        crops: those for the biases, float32 (3, H, W); the first `CROPS_ALONE` tell the layers' errors.
        threads: how many crops are computed at a time.
        budget: the budget.
        judge: decides whether it is held.

    Returns:
        The draft, with all rungs that were tried. Where none holds the budget, the one with the least loss is taken,
        and a notice is printed.

    Raises:
        InputError: the float network is sure of no keypoint of the people that decide, or a budget of AP has no labels.
    """

    def tried(step: str, kept: frozenset[str], before: Draft) -> Draft:
        candidate = with_float_layers(draft, kept)
        if draft.biases_corrected:
            candidate = correct_bias(candidate, crops, threads, CorrectBiasStep(crops=len(crops)))
        rung = judge.measure(candidate, step)
        print(f"{step}: {budget.measure} {budget.loss(rung):.4f}, budget {budget.limit:g}", file=sys.stderr)
        return replace(candidate, rungs=(*before.rungs, rung))

    climbed = [draft]
    sets = ladder(draft, crops[:CROPS_ALONE], threads)
    while not budget.holds(climbed[-1].standing) and (larger := next(sets, None)):
        climbed.append(tried(*larger, climbed[-1]))
    held = climbed[-1]
    if not budget.holds(held.standing):
        best = min(climbed, key=lambda one: budget.loss(one.standing))
        print(
            f"notice: no set of layers holds the budget of {budget.limit:g}; the best is taken: {best.standing.step}",
            file=sys.stderr,
        )
        tell_of_chance(budget, best.standing, judge.people)
        beyond = (replace(rung, undone=True) for rung in held.rungs[len(best.rungs) :])
        return replace(best, rungs=(*best.rungs, *beyond))
    for name in _returnable(draft, held, judge):
        kept = held.keep_float - {name}
        if any(set(rung.keep_float) == kept for rung in held.rungs):
            continue
        returned = tried(f"{name} back in INT8", kept, held)
        if budget.holds(returned.standing):
            held = returned
        else:
            held = replace(held, rungs=(*held.rungs, replace(returned.rungs[-1], undone=True)))
    tell_of_chance(budget, held.standing, judge.people)
    return held


def tell_of_chance(budget: Budget, rung: Rung, people: int) -> None:
    """Say so where AP on the people that decide is less sure than the budget."""
    if budget.measure == "ap_loss" and rung.ap_loss_interval:
        low, high = rung.ap_loss_interval
        if (chance := (high - low) / 2) > budget.limit:
            needed = math.ceil(people * (chance / budget.limit) ** 2)
            print(
                f"notice: {people} people tell AP to {chance:.4f} only, by chance; for the budget of {budget.limit:g} "
                f"about {needed} would have to decide: calibrate on {2 * needed}, or give the budget as oks_loss",
                file=sys.stderr,
            )


def _returnable(draft: Draft, held: Draft, judge: Judge) -> list[str]:
    """Return the layers that the ladder took out of INT8, those with the most work first; no depthwise ones."""
    taken = [layer for layer in draft.layers if layer.name in held.keep_float and layer.type != "ConvolutionDepthWise"]
    return sorted((layer.name for layer in taken), key=judge.macs.__getitem__, reverse=True)[:RETURNS]


def with_float_layers(draft: Draft, names: frozenset[str]) -> Draft:
    """Return the draft with layers in float, as the float network has them: nothing is rounded in them any more."""
    return replace(draft, keep_float=names).with_weights({name: draft.reference.named(name)[1] for name in names})


def ladder(draft: Draft, crops: Sequence[Floats], threads: int) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield ever larger sets of layers to keep in float, each with what is new in it, in words."""
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


def _decibels(rung: Rung) -> float:
    return math.inf if rung.sqnr_db is None else rung.sqnr_db
