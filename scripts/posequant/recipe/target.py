"""What a recipe's steps do for the processor that the network is meant for."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from posequant.base.errors import InputError
from posequant.base.files import read_json
from posequant.workflow.settings.recipe import CenterStep, KeepFloatStep, Recipe, Steps, Target, WeightsStep

# Bits of the weights that INT8 Winograd can take, and why.
_BITS: dict[Target, tuple[int, str]] = {
    "any": (8, "costs nothing on x86 and on ARM with dot product; elsewhere these layers run without Winograd"),
    "x86": (8, "as fast without Winograd"),
    "arm": (6, "Winograd is faster, and takes no more"),
    "arm-dotprod": (8, "it never uses Winograd in INT8"),
    "vulkan": (6, "Winograd is faster, and takes no more"),
}


def decided(recipe: Recipe | Steps, target: Target) -> tuple[Recipe, list[str]]:
    """Return a recipe with all that depends on the target decided, and what was decided, a sentence each.

    `any` takes nothing for free that is free on some processors only.

    Args:
        recipe: the steps.
        target: what the network is to run on.
    """
    recipe = Recipe.of(recipe)
    steps: list[dict[str, dict[str, Any]]] = []
    said = []
    for step, (name, settings) in zip(recipe.filled(), recipe.steps(), strict=True):
        if isinstance(settings, KeepFloatStep) and settings.targets:
            kept = target in settings.targets
            what, where = ", ".join((*settings.types, *settings.layers)), ", ".join(settings.targets)
            verb = "stays" if kept else "does not stay"
            said.append(f"{name}: {what} {verb} in float for target {target}; the step is for {where}.")
            if not kept:
                continue
        if isinstance(settings, CenterStep) and target == "vulkan":
            said.append(
                f"{name}: left out for target {target}: ncnn computes an INT8 layer that is padded with another value "
                "than 0 on the CPU there."
            )
            continue
        if isinstance(settings, WeightsStep) and settings.bits == "auto":
            bits, reason = _BITS[target]
            said.append(f"{name}: {bits} bits in 3x3 convolutions of stride 1 for target {target}: {reason}.")
            step = {name: {**step[name], "bits": bits}}
        steps.append(step)
    return Recipe.of(steps), list(dict.fromkeys(said))


def target_of(facts: Mapping[str, Any]) -> Target:
    """Return the target that a device is, by what it told: its `architecture`, and the `features` of its cores."""
    if facts["architecture"] in ("x86_64", "AMD64", "i686"):
        return "x86"
    if facts["architecture"].startswith(("aarch64", "arm")):
        return "arm-dotprod" if "dotprod" in facts["features"] else "arm"
    return "any"


def add_target_options(parser: ArgumentParser) -> None:
    """Add `--target` and `--device`: what the network of a script is to run on."""
    parser.add_argument(
        "--target",
        choices=get_args(Target),
        default="any",
        help="what the network is to run on; some steps of recipes depend on it (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        type=Path,
        nargs="?",
        help="in place of --target: what a device says that it is (runner.py --facts)",
    )


def chosen_target(arguments: Namespace) -> Target:
    """Return the target that these options say; `InputError` where the device's file is not what the runner tells."""
    if not arguments.device:
        target: Target = arguments.target
        return target
    try:
        return target_of(read_json(arguments.device))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{arguments.device}: does not say what a device is. Delete it and run again.") from error
