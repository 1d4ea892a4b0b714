"""A recipe: steps, one after the other, from a float network to one that ncnn2int8 quantizes well."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from posequant.calibration.weights import quantizable, warn_of_miscomputed
from posequant.crop_files import load_crops
from posequant.errors import InputError
from posequant.files import sha256, whole, write_json
from posequant.model_spec import ModelSpec
from posequant.ncnn_model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.recipe.activation_scales import scale_activations
from posequant.recipe.bias import correct_bias
from posequant.recipe.budget import Judge, hold_budget
from posequant.recipe.draft import Draft, Floats
from posequant.recipe.equalization import equalize
from posequant.recipe.page import render
from posequant.recipe.propagation import affordable
from posequant.recipe.rounding import learn_rounding
from posequant.recipe.weight_scales import scale_weights

Recipe = Sequence[Mapping[str, Mapping[str, Any]]]
"""Steps in order, each the name of one of `STEPS` with its settings."""


def keep_float(
    draft: Draft, crops: Sequence[Floats], threads: int, *, types: Sequence[str], layers: Sequence[str]
) -> Draft:
    """Leave layers in float: all of some types of ncnn, and those named.

    Raises:
        InputError: a named layer cannot be quantized anyway, or none would be left to quantize.
    """
    of_types = {layer.name for layer in draft.layers if layer.type in types}
    kept = draft.keep_float | of_types | set(layers)
    quantizable(draft.model.layers, kept)
    return replace(draft, keep_float=kept)


STEPS: Mapping[str, Callable[..., Draft]] = {
    "keep-float": keep_float,
    "equalize": equalize,
    "weights": scale_weights,
    "activations": scale_activations,
    "round": learn_rounding,
    "correct-bias": correct_bias,
    "budget": hold_budget,
}


def apply_recipe(
    recipe: Recipe, model: NcnnModel, crops: Sequence[Floats], threads: int, spec: ModelSpec | None = None
) -> Draft:
    """Return what a recipe makes of a float network. The same recipe, network and crops give the same draft.

    Args:
        recipe: the steps. A setting `crops` says how many of the crops a step looks at, the first ones.
        model: the float network.
        crops: the calibration crops, float32 (3, H, W).
        threads: how many crops are computed at a time; the draft does not depend on it.
        spec: the network's description, which a step `budget` needs. Where there is one, it decides by the second half
            of the crops, and the other steps look at the first half only.

    Raises:
        InputError: a step fails, or a layer is left without scales.
    """
    draft = Draft.of(model)
    # Sums of a matrix product depend on how many threads share it; the threads here are one a crop.
    with threadpool_limits(1):
        steps = dict(STEPS)
        if any("budget" in step for step in recipe):
            if spec is None or len(crops) < 2:
                raise InputError("a recipe with a budget needs the model's description and at least two crops.")
            half = len(crops) // 2
            judge = Judge.of(spec, model, np.stack(crops[half:]), threads)
            crops = crops[:half]
            steps["budget"] = partial(hold_budget, judge=judge)
        for step in recipe:
            ((name, settings),) = step.items()
            settings = dict(settings)
            few = crops[: settings.pop("crops", len(crops))]
            draft = steps[name](draft, few, threads, **settings)
    for name in draft.names:
        for scales, step_name in ((draft.weight_scales, "weights"), (draft.activation_scales, "activations")):
            if name not in scales:
                raise InputError(f"the recipe chooses no scale for layer {name}: give it a step `{step_name}`.")
    return draft


def apply_recipe_to_files(
    recipe: Recipe,
    param: Path,
    bin_: Path,
    crops: Path,
    threads: int,
    out: tuple[Path, Path],
    table: Path,
    record: Path,
    page: Path,
    spec: ModelSpec | None = None,
) -> None:
    """Apply a recipe to a network's files and write what ncnn2int8 takes: all files, or none.

    Args:
        recipe: as for `apply_recipe`.
        param: the float network's `.param`.
        bin_: its `.bin`.
        crops: folder of the calibration crops.
        threads: how many crops are computed at a time.
        out: `.param` and `.bin` of the prepared network to write.
        table: the calibration table to write.
        record: JSON to write: the `recipe`, its layers in float, what a budget tried, what it was made of.
        page: the same as Markdown, to write.
        spec: as for `apply_recipe`.

    Raises:
        InputError: a file is missing or damaged, or as `apply_recipe`.
    """
    model = NcnnModel.read(param, bin_)
    if marked := [layer.name for layer in model.layers if layer.int8_term]:
        raise InputError(f"{param}: layer {marked[0]} is INT8 already. Give the float model.")
    warn_of_miscomputed(model.layers)
    tensors = list(load_crops(crops, limit=None))
    count = affordable(model, NcnnNetwork(param, bin_, "fp32", tensors[0].shape).blob_sizes(), len(tensors))
    draft = apply_recipe(recipe, model, tensors[:count], threads, spec)
    with whole(out[0]) as draft_param, whole(out[1]) as draft_bin, whole(table) as draft_table:
        draft.model.write(draft_param, draft_bin)
        draft.table.write(draft_table)
        draft.table.check(draft.model.layers, draft.keep_float, table)
        content = {
            "recipe": recipe,
            "keep_float": sorted(draft.keep_float),
            "crops": count,
            "tried": [asdict(rung) for rung in draft.rungs],
            "sha256": {path.name: sha256(path) for path in (param, bin_)},
            "versions": {package: version(package) for package in ("ncnn", "numpy")},
        }
        write_json(record, content)
        with whole(page) as draft_page:
            draft_page.write_text(render(content))
