"""A recipe: steps, one after the other, from a float network to one that ncnn2int8 quantizes well."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from posequant.base.errors import InputError
from posequant.base.files import whole
from posequant.base.measures import measure_for
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import hashes, versions
from posequant.data.crop_files import People, load_crops
from posequant.data.wide_crops import AugmentedCrops
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.propagation import affordable
from posequant.quantize.weights import products, quantizable, warn_of_miscomputed
from posequant.recipe.activation_scales import scale_activations
from posequant.recipe.bias import correct_bias
from posequant.recipe.budget import Budget, hold_budget, with_float_layers
from posequant.recipe.centering import center
from posequant.recipe.deconvolutions import split_deconvolutions
from posequant.recipe.draft import Draft, Floats, Rung
from posequant.recipe.equalization import equalize
from posequant.recipe.judge import Judge, Panel
from posequant.recipe.keeping import judged, settled
from posequant.recipe.parts import split, tell_of_few
from posequant.recipe.rounding import learn_rounding
from posequant.recipe.score import Score
from posequant.recipe.stem import fold_stem
from posequant.recipe.target import decided
from posequant.recipe.training import Training
from posequant.recipe.weight_scales import scale_weights
from posequant.workflow.settings.recipe import (
    PREPARING,
    BudgetStep,
    DistillStep,
    KeepFloatStep,
    Recipe,
    Step,
    Steps,
    Target,
)


def keep_float(draft: Draft, crops: Sequence[Floats], threads: int, settings: KeepFloatStep) -> Draft:
    """Leave layers in float: all of some types of ncnn, and those named.

    Args:
        draft: the draft.
        crops: not looked at.
        threads: not used.
        settings: which types and which layers.

    Raises:
        InputError: a named layer cannot be quantized anyway, or none would be left to quantize.
    """
    of_types = {layer.name for layer in (*draft.layers, *products(draft.model.layers)) if layer.type in settings.types}
    kept = draft.keep_float | of_types | set(settings.layers)
    quantizable(draft.model.layers, kept)
    return with_float_layers(draft, kept)


STEPS: Mapping[str, Callable[..., Draft]] = {
    "keep-float": keep_float,
    "split-deconvolutions": split_deconvolutions,
    "equalize": equalize,
    "weights": scale_weights,
    "activations": scale_activations,
    "center": center,
    "round": learn_rounding,
    "correct-bias": correct_bias,
    "fold-stem": fold_stem,
}


def apply_recipe(
    recipe: Recipe | Steps,
    model: NcnnModel,
    crops: Sequence[Floats],
    threads: int,
    judge: Judge | None = None,
    *,
    training: Training | None = None,
) -> Draft:
    """Return what a recipe makes of a float network. The same recipe, network and crops give the same draft.

    Args:
        recipe: the steps, such as `[{"weights": {"bits": 8}}, {"activations": {"method": "kl"}}]`. What is left out of
            their settings has its default. A setting `crops` says how many of the crops a step looks at: the first.
        model: the float network.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time; the draft does not depend on it.
        judge: measures the draft after each step, where there is one, on people other than those of the crops. A step
            that makes the outputs worse for them is undone. A step that prepares a network whose scales are chosen is
            judged with all that follows it and that the network had before, such as the choice of scales: the group is
            kept or undone as a whole.
        training: what the step `distill` takes.

    Raises:
        InputError: a step or setting is unknown or misplaced, or a step fails.
    """
    recipe = Recipe.of(recipe)
    draft, rival = Draft.of(model), None
    # Names of the steps so far, and of those that the rival had; steps in words, since the last measurement and since
    # the rival.
    done: list[str] = []
    had: list[str] = []
    new: list[str] = []
    group: list[str] = []
    # Sums of a matrix product depend on how many threads share it; the threads here are one a crop.
    with threadpool_limits(1):
        for name, settings in recipe.steps():
            if rival and draft.complete and (name in PREPARING or name not in had):
                draft, rival = settled(rival, draft, "; ".join(group)), None
            if isinstance(settings, BudgetStep):
                if judge is None:
                    raise InputError("a budget needs somebody to judge: give a judge")
                draft = hold_budget(draft, crops[: settings.crops], threads, Budget.of(settings), judge)
                continue
            if judge and name in PREPARING and draft.complete:
                rival, had, group = draft, list(done), []
            if isinstance(settings, DistillStep):
                candidate = _distilled(draft, threads, settings, training)
            else:
                candidate = STEPS[name](draft, crops, threads, settings)
            if name in PREPARING:
                candidate = candidate.without_scales()
            done.append(name)
            new.append(_in_words(name, settings))
            group.append(new[-1])
            if judge and candidate.complete:
                # The first network of a group is compared with nothing: its rival may have had more steps.
                comparable = rival is None or len(draft.rungs) > len(rival.rungs)
                draft, new = judged(draft, candidate, "; ".join(new), judge, undo=comparable), []
            else:
                draft = candidate
        return settled(rival, draft, "; ".join(group)) if rival else draft


def _distilled(draft: Draft, threads: int, settings: DistillStep, training: Training | None) -> Draft:
    if training is None:
        raise InputError("the step distill needs crops to train on, and somebody to judge: give both")
    # PyTorch takes seconds to import, and no other step needs it.
    from posequant.recipe.distillation import distill

    return distill(draft, training, threads, settings)


def budget_of(recipe: Recipe | Steps) -> Budget | None:
    """Return the budget that a recipe holds, None where it has none."""
    settings = Recipe.of(recipe).budget
    return Budget.of(settings) if settings else None


def _in_words(name: str, settings: Step) -> str:
    """Return a step with those of its settings that tell one from another."""
    values = [getattr(settings, key, None) for key in ("bits", "scales", "method", "types", "layers", "strength")]
    words = [", ".join(value) if isinstance(value, list) else str(value) for value in values if value]
    return f"{name} ({', '.join(words)})" if words else name


def apply_recipe_to_files(
    recipe: Recipe | Steps,
    *,
    model: Path,
    param: Path,
    bin_: Path,
    crops: Path,
    threads: int,
    out: tuple[Path, Path],
    table: Path,
    reference: tuple[Path, Path] | None = None,
    distillation: Path | None = None,
    checkpoint: Path | None = None,
    target: Target = "any",
    measured: bool = True,
) -> dict[str, Any]:
    """Apply a recipe to a network's files and write what ncnn2int8 takes: all files, or none.

    The people are split by their images: half are seen by the steps, a quarter decides which steps are kept, and a
    quarter only tells at the end what the network that was taken loses.

    Args:
        recipe: as for `apply_recipe`.
        model: the network's description.
        param: the float network's `.param`.
        bin_: its `.bin`.
        crops: folder of the calibration crops.
        threads: how many crops are computed at a time.
        out: `.param` and `.bin` of the prepared network to write.
        table: the calibration table to write.
        distillation: folder of the wide crops that the step `distill` takes its crops from (`AugmentedCrops`).
        checkpoint: file in which `distill` keeps how far it is, and from which it goes on; gone at the end.
        reference: `.param` and `.bin` to write of the float network that has the prepared one's layers, with nothing
            rounded or corrected.
        target: what the network is to run on.
        measured: whether to measure what the draft does not depend on, too: times, AP and the outcome.

    Returns:
        What was done, for JSON: what networks are `judged_by`, OKS or NME; the `recipe`, the `target` and what was
        `decided` for it; the layers in float; numbers of `people`; the `rungs` that were measured, each with its
        score by all of them, and the place of the one that was `taken`; the `outcome` on the people that tell, None
        without them; and what all was made of.

    Raises:
        InputError: a file is missing or damaged, or as `apply_recipe`.
    """
    recipe, said = decided(given := Recipe.of(recipe), target)
    for sentence in said:
        print(f"notice: {sentence}", file=sys.stderr)
    spec, network = ModelSpec.load(model), NcnnModel.read(param, bin_)
    if marked := [layer.name for layer in network.layers if layer.int8_term]:
        raise InputError(f"{param}: layer {marked[0]} is INT8 already. Give the float model.")
    warn_of_miscomputed(network.layers)
    tensors, people = load_crops(crops, limit=None), People.load(crops)
    budget = budget_of(recipe)
    parts = split(people.image_ids)
    tell_of_few(parts, bounded=budget is not None and budget.limit is not None)
    labelled = measured or (budget is not None and budget.measure == "ap_loss")
    judged_by = tensors[parts.deciding], people[parts.deciding]
    judge = Judge(spec, network, *judged_by, threads, labelled=labelled, timed=measured)
    training = Training(AugmentedCrops(distillation, spec, threads), judge, checkpoint) if distillation else None
    count = affordable(network, judge.network.blob_sizes(), len(parts.seen))
    # As in apply_recipe: nothing may depend on the number of threads.
    with threadpool_limits(1):
        seen = list(tensors[parts.seen[:count]])
        draft = apply_recipe(recipe, network, seen, threads, judge, training=training)
        scores = judge.scores(draft.rungs)
        outcome = None
        if measured and len(parts.telling):
            panel = Panel(spec, judge.network, tensors[parts.telling], people[parts.telling], threads)
            outcome = _outcome(panel, draft, spec)
    with whole(out[0]) as draft_param, whole(out[1]) as draft_bin, whole(table) as draft_table:
        draft.model.write(draft_param, draft_bin)
        draft.table.write(draft_table)
        draft.table.check(draft.model.layers, draft.keep_float, table)
        if reference:
            draft.reference.write(*reference)
    return {
        "model": spec.name,
        "judged_by": measure_for(spec.keypoints.sigmas).loss,
        "recipe": given.filled(),
        "target": target,
        "decided": said,
        "keep_float": sorted(draft.keep_float),
        "people": {
            "calibrated": count,
            "measured": judge.people,
            "telling": len(parts.telling),
        },
        "rungs": [_record(rung, score) for rung, score in zip(draft.rungs, scores, strict=True)],
        "taken": draft.place,
        "outcome": outcome,
        "made_from": hashes(param, bin_),
        "sha256": hashes(*out, table, *(reference or ())),
        "versions": versions("ncnn", "numpy", "mmpose", "pycocotools"),
    }


def _outcome(panel: Panel, draft: Draft, spec: ModelSpec) -> dict[str, Any]:
    """Return what a draft loses on people who had no say in it."""
    int8 = NcnnNetwork.of(draft.int8, "int8", spec.input_shape, spec.output_shapes)
    (score,) = panel.scores([panel.evidence(int8)])
    return {
        "oks_loss": asdict(score.oks_loss) if score.oks_loss else None,
        "ap_loss": asdict(score.ap_loss) if score.ap_loss else None,
    }


def _record(rung: Rung, score: Score) -> dict[str, Any]:
    return {
        "step": rung.step,
        "keep_float": rung.keep_float,
        **asdict(score),
        "sqnr_db": rung.sqnr_db,
        "int8_work": rung.int8_work,
        "megabytes": rung.megabytes,
        "milliseconds": rung.milliseconds,
        "undone": rung.undone,
    }
