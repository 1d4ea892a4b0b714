"""What a recipe decides for a target."""

import pytest

from posequant.recipe.target import decided, target_of
from posequant.workflow.settings.recipe import Recipe, Steps, Target

ACTIVATIONS = {"activations": {"method": "kl"}}


@pytest.mark.parametrize(("target", "kept"), [("x86", True), ("any", False), ("arm", False), ("arm-dotprod", False)])
def test_layers_stay_in_float_for_the_named_targets_only(target: Target, kept: bool) -> None:
    steps: Steps = [
        {"keep-float": {"types": ["ConvolutionDepthWise"], "targets": ["x86"]}},
        {"weights": {}},
        ACTIVATIONS,
    ]
    recipe, said = decided(steps, target)
    assert [name for name, _ in recipe.steps()] == [*(["keep-float"] if kept else []), "weights", "activations"]
    verb = "stays" if kept else "does not stay"
    assert said == [f"keep-float: ConvolutionDepthWise {verb} in float for target {target}; the step is for x86."]


@pytest.mark.parametrize(("target", "bits"), [("any", 8), ("x86", 8), ("arm", 6), ("arm-dotprod", 8), ("vulkan", 6)])
def test_bits_go_by_what_winograd_is_worth(target: Target, bits: int) -> None:
    recipe, (sentence,) = decided([{"weights": {"bits": "auto", "scales": "mse"}}, ACTIVATIONS], target)
    assert recipe.filled()[0] == {"weights": {"bits": bits, "scales": "mse"}}
    assert sentence.startswith(f"weights: {bits} bits in 3x3 convolutions of stride 1 for target {target}: ")


@pytest.mark.parametrize(("target", "kept"), [("any", True), ("x86", True), ("arm", True), ("vulkan", False)])
def test_nothing_is_centered_for_vulkan(target: Target, kept: bool) -> None:
    steps: Steps = [{"weights": {}}, ACTIVATIONS, {"center": {}}, {"correct-bias": {}}]
    recipe, said = decided(steps, target)
    assert [name for name, _ in recipe.steps()] == [
        *("weights", "activations"),
        *(["center"] if kept else []),
        "correct-bias",
    ]
    assert [sentence.partition(":")[0] for sentence in said] == ([] if kept else ["center"])


def test_what_names_no_target_is_for_all() -> None:
    steps: Steps = [{"keep-float": {"layers": ["conv_a"]}}, {"weights": {"bits": 6}}, ACTIVATIONS]
    assert decided(steps, "any") == (Recipe.of(steps), [])


@pytest.mark.parametrize(
    ("architecture", "features", "target"),
    [
        ("x86_64", ["AVX2", "AVX-512 VNNI"], "x86"),
        ("aarch64", ["NEON"], "arm"),
        ("armv7l", ["NEON"], "arm"),
        ("aarch64", ["NEON", "FP16", "dotprod"], "arm-dotprod"),
        ("riscv64", [], "any"),
    ],
)
def test_target_of_a_device_is_told_by_its_features(architecture: str, features: list[str], target: Target) -> None:
    assert target_of({"architecture": architecture, "features": features}) == target
