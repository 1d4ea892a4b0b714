"""Whether a step is kept: only if the real INT8 network is no worse for it, for people whom no step saw."""

import math
import sys
from dataclasses import replace

from posequant.recipe.draft import Draft, Rung
from posequant.recipe.judge import Judge


def judged(draft: Draft, candidate: Draft, step: str, judge: Judge, *, undo: bool = True) -> Draft:
    """Return what a step made of a draft, with its rung.

    A step is undone where the network's outputs are worse for it, by their SQNR, which tells steps apart on fewer
    people than OKS or AP.

    Args:
        draft: as it was before the step.
        candidate: what the step made of it, with all scales.
        step: the step in words.
        judge: measures the candidate.
        undo: whether the two can be compared.
    """
    rung = judge.measure(candidate, step)
    if undo and draft.rungs and decibels(rung) < decibels(draft.standing):
        print(f"notice: {step} makes the outputs worse and is undone", file=sys.stderr)
        return replace(draft, rungs=(*draft.rungs, replace(rung, undone=True)))
    return replace(candidate, rungs=(*draft.rungs, rung), place=len(draft.rungs))


def settled(rival: Draft, draft: Draft, steps: str) -> Draft:
    """Return the better of two drafts, with all rungs.

    Args:
        rival: as it was before a group of steps.
        draft: what came of them, each judged by itself.
        steps: the group in words.
    """
    if decibels(draft.standing) >= decibels(rival.standing):
        return draft
    print(f"notice: {steps} make the outputs worse and are undone", file=sys.stderr)
    undone = [replace(rung, undone=True) for rung in draft.rungs[len(rival.rungs) :]]
    return replace(rival, rungs=(*rival.rungs, *undone))


def decibels(rung: Rung) -> float:
    """Return the SQNR of a network that was tried, infinite without noise."""
    return math.inf if rung.sqnr_db is None else rung.sqnr_db
