"""The step `budget`: as few layers as a budget allows stay in float, chosen by what they cost and what they buy."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from posequant.base.errors import InputError
from posequant.recipe.bias import correct_bias
from posequant.recipe.draft import Draft, Floats, Rung
from posequant.recipe.judge import Judge
from posequant.recipe.output_error import errors_alone
from posequant.recipe.score import Score
from posequant.workflow.settings.recipe import BudgetStep, CorrectBiasStep

# Crops on which the layers' errors are compared; the budget is held on all that decide.
CROPS_ALONE = 16
# Rungs are tried at these numbers of layers in float, beside the depthwise ones.
FLOAT_LAYERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# How often a layer in float is tried in INT8 again.
RETURNS = 8


@dataclass(frozen=True)
class Budget:
    """What INT8 may cost.

    A network holds the budget where the one-sided upper bound of its loss, at 95%, is within the limit.

    Attributes:
        measure: which loss of a `Score`: `expected_oks_loss`, which needs no labels, or `ap_loss`.
        limit: the most that it may be.
    """

    measure: str
    limit: float

    @classmethod
    def of(cls, settings: BudgetStep) -> "Budget":
        """Return the budget that the settings of a step `budget` name."""
        limits = (("expected_oks_loss", settings.oks_loss), ("ap_loss", settings.ap_loss))
        return next(cls(measure, limit) for measure, limit in limits if limit is not None)

    def loss(self, score: Score) -> float:
        """Return what a network is expected to lose; `InputError` where it cannot be measured."""
        in_ap = score.ap_loss.value if score.ap_loss else None
        loss = in_ap if self.measure == "ap_loss" else score.expected_oks_loss
        if loss is None:
            raise InputError(
                f"the people that decide do not tell the {self.measure}: the float network finds none of their "
                "keypoints, or they have no labels. Calibrate on other people."
            )
        return loss

    def bound(self, score: Score) -> float:
        """Return the upper bound of that loss, infinite where too few draws tell it; `InputError` as `loss`."""
        self.loss(score)
        bound = score.ap_loss_bound if self.measure == "ap_loss" else score.expected_oks_loss_bound
        return math.inf if bound is None else bound

    def holds(self, score: Score) -> bool:
        """Return whether a network is within the budget; `InputError` as `loss`."""
        return self.bound(score) <= self.limit


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
    return replace(candidate, rungs=(*draft.rungs, rung), place=len(draft.rungs))


def hold_budget(draft: Draft, crops: Sequence[Floats], threads: int, budget: Budget, judge: Judge) -> Draft:
    """Keep just so many layers in float that INT8 costs no more than the budget.

    A ladder of sets is climbed until a real INT8 network holds the budget. Its first rung has all depthwise
    convolutions in float, which ncnn computes about as fast there. Then come the others, those first that cause most
    error at the output, each alone. (Ordered by error per work, cheap layers that cause little error come before those
    that dominate, and the sets that hold a budget cost more: seen on SimplePose.) Once a set holds it, its layers with
    the most work are tried in INT8 again, one by one. Biases that a step corrected are corrected further for each set.

    What a network is expected to lose depends on all that were measured. So after each of them all are scored anew, and
    the search goes on from the set that holds the budget with the least work in float, or climbs on where none does any
    more. It ends when nothing is left to try, and takes that set by the scores of all. Nothing that is timed decides,
    so the choice is the same in every run.

    Args:
        draft: the draft, with all scales, and judged.
        crops: those for the biases, float32 (3, H, W); the first `CROPS_ALONE` tell the layers' errors.
        threads: how many crops are computed at a time.
        budget: the budget.
        judge: decides whether it is held.

    Returns:
        The draft, with all rungs that were tried. Where none holds the budget, the one with the least bound is taken,
        and a notice is printed.

    Raises:
        InputError: the float network is sure of no keypoint of the people that decide, or a budget of AP has no labels.
    """
    sets, returns = ladder(draft, crops[:CROPS_ALONE], threads), 0
    tried, rungs = {draft.keep_float: draft}, list(draft.rungs)
    while True:
        found = judge.scores(rungs)
        if len(rungs) > len(draft.rungs):
            print(f"{rungs[-1].step}: {_stated(budget, found[-1])}", file=sys.stderr)
        scores = {kept: found[one.place] for kept, one in tried.items()}
        held = _cheapest(scores, budget, judge)
        proposal: tuple[str, frozenset[str]] | None = None
        if held is None:
            proposal = next(sets, None)
        elif returns < RETURNS:
            proposal, returns = _return(draft, held, scores, budget, judge), returns + 1
        if proposal is None:
            break
        step, kept = proposal
        candidate = with_float_layers(draft, kept)
        if draft.biases_corrected:
            candidate = correct_bias(candidate, crops, threads, CorrectBiasStep(crops=len(crops)))
        tried[kept] = replace(candidate, place=len(rungs))
        rungs.append(judge.measure(candidate, step))
    if held is None:
        held = min(scores, key=lambda kept: budget.bound(scores[kept]))
        print(
            f"notice: no set of layers holds the budget of {budget.limit:g}; the best is taken: "
            f"{rungs[tried[held].place].step}, {_stated(budget, scores[held])}",
            file=sys.stderr,
        )
        tell_of_chance(budget, scores[held], judge.people)
    return replace(tried[held], rungs=tuple(rungs))


def tell_of_chance(budget: Budget, score: Score, people: int) -> None:
    """Say so where a network is within the budget and only its bound is not: more people would tell."""
    loss, bound = budget.loss(score), budget.bound(score)
    if loss < budget.limit < bound < math.inf:
        # What chance adds shrinks with the root of the number of people.
        needed = math.ceil(people * ((bound - loss) / (budget.limit - loss)) ** 2)
        print(
            f"notice: that network is expected to hold the budget, but {people} people are too few to be sure. It "
            f"takes about {needed} to decide: calibrate on {4 * needed}",
            file=sys.stderr,
        )


def _stated(budget: Budget, score: Score) -> str:
    return f"{budget.measure} {budget.loss(score):.4f}, at most {budget.bound(score):.4f}"


def _cheapest(scores: Mapping[frozenset[str], Score], budget: Budget, judge: Judge) -> frozenset[str] | None:
    """Return the set that holds the budget with the least work in float; of equal ones the one with the least bound."""
    held = [kept for kept, score in scores.items() if budget.holds(score)]

    def price(kept: frozenset[str]) -> tuple[int, float]:
        return sum(judge.macs[name] for name in kept), budget.bound(scores[kept])

    return min(held, key=price, default=None)


def _return(
    draft: Draft, held: frozenset[str], scores: Mapping[frozenset[str], Score], budget: Budget, judge: Judge
) -> tuple[str, frozenset[str]] | None:
    """Return the next set to try, in words and by name: `held` without the layer with the most work that it can miss.

    Depthwise layers stay, and so do those that the draft has in float. A set that was tried is left out, and so is one
    that is part of a set that breaks the budget. None where nothing remains.
    """
    broken = [kept for kept, score in scores.items() if not budget.holds(score)]
    taken = [layer for layer in draft.layers if layer.name in held and layer.type != "ConvolutionDepthWise"]
    for name in sorted((layer.name for layer in taken), key=judge.macs.__getitem__, reverse=True):
        kept = held - {name}
        if kept not in scores and not any(kept <= larger for larger in broken):
            return f"{name} back in INT8", kept
    return None


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
    for count in FLOAT_LAYERS:
        if count < len(order):
            yield f"{', '.join(order[before:count])} in float", kept | set(order[:count])
            before = count


def _decibels(rung: Rung) -> float:
    return math.inf if rung.sqnr_db is None else rung.sqnr_db
