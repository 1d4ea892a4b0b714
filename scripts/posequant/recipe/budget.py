"""The step `budget`: as little work as a budget allows is done in float, where it takes most noise away."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from posequant.base.errors import InputError
from posequant.recipe.bias import FloatWay, correct_bias
from posequant.recipe.draft import Draft, Floats, Rung
from posequant.recipe.judge import Judge
from posequant.recipe.keeping import decibels
from posequant.recipe.layer_noise import estimated, noise_alone, relief
from posequant.recipe.score import Score
from posequant.workflow.settings.recipe import BudgetStep, CorrectBiasStep

# Crops on which each layer is looked at alone, and on which the best of them are tried in the INT8 network.
CROPS_ALONE, CROPS_TRIED = 16, 24
# How many layers are tried in the INT8 network before each rung.
TRIED = 24
# A layer in float costs more than its work: what it reads and makes is converted. It counts as this share of the work
# of an average layer, so that of many layers with next to no work those are taken that help.
CONVERSION = 0.1
# A rung takes the layers that cause this share of the noise; at most so many, or this share of all layers.
SHARE, AT_ONCE, SHARE_AT_ONCE = 1 / 3, 8, 1 / 16
# So many rungs are climbed at most.
RUNGS = 16
# How often a layer in float is tried in INT8 again.
RETURNS = 8
# Of a sum of shares.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Budget:
    """What INT8 may cost, and what float may.

    A network holds the budget where the one-sided upper bound of its loss, at 95%, is within the limit.

    Attributes:
        measure: which loss of a `Score`: `expected_oks_loss`, which needs no labels, or `ap_loss`.
        limit: the most that it may be; None where the network with the least noise is wanted.
        int8_work: the least share of the work that stays in INT8.
    """

    measure: str
    limit: float | None
    int8_work: float = 0.0

    @classmethod
    def of(cls, settings: BudgetStep) -> "Budget":
        """Return the budget that the settings of a step `budget` name."""
        int8_work = settings.int8_work or 0.0
        if settings.ap_loss is not None:
            return cls("ap_loss", settings.ap_loss, int8_work)
        return cls("expected_oks_loss", settings.oks_loss, int8_work)

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
        """Return whether a network is within the limit; never where there is none. `InputError` as `loss`."""
        return self.limit is not None and self.bound(score) <= self.limit


def hold_budget(draft: Draft, crops: Sequence[Floats], threads: int, budget: Budget, judge: Judge) -> Draft:
    """Keep layers in float: as little work as the budget needs, or as much as it leaves, best buys first.

    A ladder of sets is climbed until a real INT8 network holds the budget. Each rung adds the layers that cause most
    noise for their work (`Ladder`). Once a set holds it, its layers with the most work are tried in INT8 again, one by
    one. Biases that a step corrected are corrected further for each set.

    What a network is expected to lose depends on all that were measured. So after each of them all are scored anew, and
    the search goes on from the set that holds the budget with the least work in float, or climbs on where none does any
    more. It ends when nothing is left to try, and takes that set by the scores of all. Nothing that is timed decides,
    so the choice is the same in every run.

    Without a limit of loss the ladder is climbed to its end, and the network with the least noise is taken.

    Args:
        draft: the draft, with all scales, and judged.
        crops: those for the biases, float32 (3, H, W); the first of them tell the layers' noise.
        threads: how many crops are computed at a time.
        budget: the budget.
        judge: decides whether it is held.

    Returns:
        The draft, with all rungs that were tried. Where none holds the budget, the one with the least bound is taken,
        and a notice is printed.

    Raises:
        InputError: the float network is sure of no keypoint of the people that decide, or a budget of AP has no labels.
    """
    if draft.standing.int8_work < budget.int8_work - _ROUNDING:
        print(
            f"notice: {draft.standing.int8_work:.1%} of the work is in INT8 with no more layers in float, less than "
            f"the {budget.int8_work:.1%} that must be",
            file=sys.stderr,
        )
    ladder, returns = Ladder(draft, crops, threads, judge.work(draft), budget.int8_work), 0
    tried, rungs = {draft.keep_float: draft}, list(draft.rungs)
    top, way = draft.keep_float, FloatWay()
    while True:
        found = judge.scores(rungs)
        if len(rungs) > len(draft.rungs):
            print(f"{rungs[-1].step}: {_stated(budget, rungs[-1], found[-1])}", file=sys.stderr)
        scores = {kept: found[one.place] for kept, one in tried.items()}
        held = cheapest(scores, budget, judge.work(draft))
        proposal: tuple[str, frozenset[str]] | None = None
        if held is None:
            proposal = ladder.next(tried[top], _excess(budget, scores[top]))
            top = proposal[1] if proposal else top
        elif returns < RETURNS:
            proposal, returns = _return(draft, held, scores, budget, judge.work(draft)), returns + 1
        if proposal is None:
            break
        step, kept = proposal
        candidate = with_float_layers(draft, kept)
        if draft.biases_corrected:
            candidate = correct_bias(candidate, crops, threads, CorrectBiasStep(crops=len(crops)), way)
        tried[kept] = replace(candidate, place=len(rungs))
        rungs.append(judge.measure(candidate, step))
    if held is None:
        held = _best(tried, rungs, scores, budget)
        if budget.limit is not None:
            _tell_of_none(budget, rungs[tried[held].place], scores[held])
            tell_of_chance(budget, scores[held], judge.people)
    return replace(tried[held], rungs=tuple(rungs))


class Ladder:
    """Ever larger sets of layers to keep in float.

    What comes next is what takes most noise away for the work that it is in float. A layer's noise is that which it
    causes when it alone is in INT8, as far as it agrees with what is gone of the INT8 network's noise when it alone is
    back in float: the first is told well by few crops, but errors of several layers may add up or make up for each
    other; the second is what counts, but rounding in later layers falls out in another way, which hides all but the
    causes of much noise (measured on SimplePose and TinyPose; docs/quantization.md). It is taken anew for each rung in
    the network as it then is.

    (Ordered by noise alone, layers with most of the work go first. Ordered by it for the work, with few rungs of few
    layers, cheap layers that cause little come before those that dominate. Here a rung ends when its layers account for
    a third of the noise, and a layer that causes much waits for few others.)
    """

    def __init__(
        self, draft: Draft, crops: Sequence[Floats], threads: int, work: Mapping[str, float], int8_work: float = 0.0
    ) -> None:
        """Prepare to climb.

        Args:
            draft: the network at the foot, with all scales.
            crops: those that tell the layers' noise, float32 (3, H, W); the first are used.
            threads: how many crops are computed at a time.
            work: share of the work of each layer, by name.
            int8_work: the least share of the work that stays in INT8.
        """
        self._draft, self._crops, self._threads = draft, crops, threads
        self._work, self._least = work, int8_work
        self._conversion = CONVERSION / max(len(work), 1)
        self._alone: dict[str, float] | None = None
        self._rungs = 0

    def next(self, draft: Draft, excess: float = 0.0) -> tuple[str, frozenset[str]] | None:
        """Return the next set, in words and by name; None at the end.

        Args:
            draft: the network of the last set.
            excess: what is known of it, the share of its noise that is too much; 0 where nothing is known.
        """
        # A matrix product without weights of its own is no work.
        names = [layer.name for layer in draft.in_int8 if layer.name in self._work]
        spare = math.fsum(self._work[name] for name in names) - self._least + _ROUNDING
        offered = [name for name in names if self._work[name] <= spare]
        # One layer must be left in INT8.
        most = min(max(AT_ONCE, int(SHARE_AT_ONCE * len(self._work))), len(names) - 1)
        if not offered or most < 1 or self._rungs == RUNGS:
            return None
        self._rungs += 1
        noise = self._noise(draft, offered)
        goal = min(SHARE, excess) if excess > 0 else SHARE
        chosen = best_buys(noise, self._work, self._conversion, Purse(spare, goal, most))
        return f"{', '.join(chosen)} in float", draft.keep_float | set(chosen)

    def _noise(self, draft: Draft, offered: Sequence[str]) -> dict[str, float]:
        """Return the share of the noise that is due to each of the layers that cause most for their work."""
        if self._alone is None:
            self._alone = noise_alone(self._draft, self._crops[:CROPS_ALONE], self._threads)
        alone = self._alone
        best = best_buys({name: alone[name] for name in offered}, self._work, self._conversion, Purse(most=TRIED))
        now, gone = relief(draft, self._crops[:CROPS_TRIED], best, self._threads)
        shares = {name: alone[name] / now if now else 0.0 for name in best}
        return {name: estimated(shares[name], gone[name]) for name in best}


@dataclass(frozen=True)
class Purse:
    """What may be spent at once, and for what.

    Attributes:
        spare: the most work.
        goal: enough noise.
        most: the most layers.
    """

    spare: float = math.inf
    goal: float = math.inf
    most: int = sys.maxsize


def best_buys(noise: Mapping[str, float], work: Mapping[str, float], conversion: float, purse: Purse) -> list[str]:
    """Return layers to keep in float, those first that cause most noise for their work, until it is enough.

    A layer for which too little work is left is passed over; others follow.

    Args:
        noise: of the layers on offer, by name.
        work: of each layer.
        conversion: what a layer in float costs beside its work.
        purse: what may be spent.
    """
    chosen: list[str] = []
    spent = bought = 0.0
    for name in sorted(noise, key=lambda name: noise[name] / (work[name] + conversion), reverse=True):
        if len(chosen) == purse.most or bought >= purse.goal:
            break
        if spent + work[name] <= purse.spare:
            chosen.append(name)
            spent, bought = spent + work[name], bought + noise[name]
    return chosen


def tell_of_chance(budget: Budget, score: Score, people: int) -> None:
    """Say so where a network is within the budget and only its bound is not: more people would tell."""
    loss, bound = budget.loss(score), budget.bound(score)
    if budget.limit is not None and loss < budget.limit < bound < math.inf:
        # What chance adds shrinks with the root of the number of people.
        needed = math.ceil(people * ((bound - loss) / (budget.limit - loss)) ** 2)
        print(
            f"notice: that network is expected to hold the budget, but {people} people are too few to be sure. It "
            f"takes about {needed} to decide: calibrate on {4 * needed}",
            file=sys.stderr,
        )


def _tell_of_none(budget: Budget, rung: Rung, score: Score) -> None:
    floor = f" with {budget.int8_work:.1%} of the work in INT8" if budget.int8_work else ""
    print(
        f"notice: no set of layers holds the budget of {budget.limit:g}{floor}; the best is taken: "
        f"{rung.step}, {_stated(budget, rung, score)}",
        file=sys.stderr,
    )


def _stated(budget: Budget, rung: Rung, score: Score) -> str:
    if budget.limit is None:
        return f"{decibels(rung):.1f} dB, {rung.int8_work:.1%} of the work in INT8"
    loss = f"{budget.measure} {budget.loss(score):.4f}, at most {budget.bound(score):.4f}"
    return f"{loss}, {rung.int8_work:.1%} of the work in INT8"


def _excess(budget: Budget, score: Score) -> float:
    """Return the share of a network's noise without which it would hold the budget; 0 where that is not known.

    The loss grows with the noise's amplitude, so with the root of its power.
    """
    if budget.limit is None or not budget.limit < budget.bound(score) < math.inf:
        return 0.0
    return 1 - (budget.limit / budget.bound(score)) ** 2


def cheapest(
    scores: Mapping[frozenset[str], Score], budget: Budget, work: Mapping[str, float]
) -> frozenset[str] | None:
    """Return the set that holds the budget with the least work in float.

    Of equal ones it is that with the fewest layers, and of these the one with the least bound.
    """
    held = [kept for kept, score in scores.items() if budget.holds(score)]

    def price(kept: frozenset[str]) -> tuple[float, int, float]:
        return math.fsum(work[name] for name in kept), len(kept), budget.bound(scores[kept])

    return min(held, key=price, default=None)


def _best(
    tried: Mapping[frozenset[str], Draft],
    rungs: Sequence[Rung],
    scores: Mapping[frozenset[str], Score],
    budget: Budget,
) -> frozenset[str]:
    """Return the set with the least bound, or with the least noise where there is no limit of loss."""
    if budget.limit is None:
        return max(tried, key=lambda kept: decibels(rungs[tried[kept].place]))
    return min(scores, key=lambda kept: budget.bound(scores[kept]))


def _return(
    draft: Draft,
    held: frozenset[str],
    scores: Mapping[frozenset[str], Score],
    budget: Budget,
    work: Mapping[str, float],
) -> tuple[str, frozenset[str]] | None:
    """Return the next set to try, in words and by name: `held` without the layer with the most work that it can miss.

    Layers that the draft has in float stay there. A set that was tried is left out, and so is one that is part of a set
    that breaks the budget. None where nothing remains.
    """
    broken = [kept for kept, score in scores.items() if not budget.holds(score)]
    for name in sorted(held - draft.keep_float, key=lambda name: (work[name], name), reverse=True):
        kept = held - {name}
        if kept not in scores and not any(kept <= larger for larger in broken):
            return f"{name} back in INT8", kept
    return None


def with_float_layers(draft: Draft, names: frozenset[str]) -> Draft:
    """Return the draft with layers in float, as the float network has them: nothing is rounded in them any more."""
    return replace(draft, keep_float=names).with_weights({name: draft.reference.named(name)[1] for name in names})
