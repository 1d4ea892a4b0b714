"""Settings of the steps of a recipe, and of the curve that calibrates by one anew."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, RootModel, model_validator

from posequant.workflow.settings.base import Settings, checked, fault

Crops = Annotated[
    int, Field(ge=1, description="How many of the calibration crops the step uses, fewer if memory does not hold them.")
]
Method = Literal["kl", "aciq", "absmax", "percentile", "mse", "output"]
Loss = Annotated[float, Field(gt=0, le=1)]
Target = Literal["any", "x86", "arm", "arm-dotprod", "vulkan"]


class KeepFloatStep(Settings):
    """Leaves layers in float."""

    types: list[Literal["Convolution", "ConvolutionDepthWise", "InnerProduct", "Gemm", "MultiHeadAttention"]] = Field(
        default=[], description="All layers of these ncnn types."
    )
    layers: list[str] = Field(default=[], description="Layers by their names in the `.param`.")
    targets: list[Target] = Field(
        default=[],
        description=(
            "The targets that the step is for; on others it does nothing. Without any it is for all. Depthwise layers "
            "cost nothing in float on `x86`, and time on ARM."
        ),
    )


class SplitDeconvolutionsStep(Settings):
    """Writes each deconvolution as convolutions, which can be INT8. In float, the output stays exactly the same.

    Deconvolutions that cannot be split exactly stay, with a notice.
    """

    depthwise: bool = Field(default=False, description="Split depthwise deconvolutions, too.")


class EqualizeStep(Settings):
    """Brings the channels of a tensor to similar ranges. In float, the output stays exactly the same."""

    strength: float = Field(default=0.5, ge=0, le=1, description="0 changes nothing, 1 makes all ranges equal.")
    crops: Crops = 64


class WeightsStep(Settings):
    """Chooses the scales of the weights."""

    bits: Literal[6, 8, "auto"] = Field(
        default=8,
        description=(
            "Bits of the weights of 3x3 convolutions of stride 1. 6 is as ncnn2table does it; 8 switches Winograd off "
            "where it could overflow. All other layers have 8. `auto` goes by the study's `target`: 6 where Winograd "
            "is faster (`arm`, `vulkan`), else 8."
        ),
        json_schema_extra={"unit": "bits"},
    )
    scales: Literal["absmax", "mse"] = Field(
        default="absmax",
        description="`absmax`: by each channel's largest weight. `mse`: by the least squared error of its weights.",
    )


class ActivationsStep(Settings):
    """Chooses the scales of the activations."""

    method: Method = Field(
        description=(
            "`kl`, `aciq`: as ncnn2table. `absmax`: the largest magnitude. `percentile`: the magnitude below which "
            "`share` of all lie. `mse`: least error of the layer's own output. `output`: least error of the network's "
            "output."
        ),
    )
    share: float = Field(
        default=0.9999, gt=0, le=1, description="For `percentile`, the share of the magnitudes to cover."
    )
    crops: Crops = 64


class CenterStep(Settings):
    """Stores tensors that are never negative about the middle of their range. In float, the output stays the same."""

    crops: Crops = 64


class RoundStep(Settings):
    """Rounds the weights so that the layer's output changes least."""

    seed: int = Field(default=0, ge=0, description="Seed of the choice of output positions to fit.")
    crops: Crops = 64


class CorrectBiasStep(Settings):
    """Subtracts the mean error of each channel from its bias."""

    gain: bool = Field(
        default=False,
        description="Also corrects the gain of each channel. It goes into the scale of its weights.",
    )
    crops: Crops = 64


class DistillStep(Settings):
    """Tunes the network by the float network's outputs, on crops without labels."""

    people: int = Field(
        default=1000,
        ge=1,
        description=(
            "How many people of the training split are chosen for it, fewer if it has no more. None are in the images "
            "of calibration people who decide or tell the outcome, or in those of the evaluation."
        ),
    )
    steps: int = Field(default=1000, ge=1, description="How many steps of the optimizer are done.")
    batch: int = Field(
        default=16,
        ge=1,
        description=(
            "How many crops a step looks at. Without a GPU the network is left as it is, with a notice, where all "
            "crops of all steps take more than 128,000 G multiply-accumulates, about five hours on one thread."
        ),
    )
    rate: float = Field(default=1.0, gt=0, description="Factor of all learning rates.")
    seed: int = Field(default=0, ge=0, description="Seed of the choice of crops and views.")


class FoldStemStep(Settings):
    """Lets a first convolution of stride 2 and 5x5 or more read blocks of 2x2 pixels as channels: the same, but faster.

    Nothing changes in INT8, to the bit. A first convolution of another kind, or in float, stays as it is.
    """


class BudgetStep(Settings):
    """Keeps layers in float: as little work as a budget of `oks_loss` or `ap_loss` needs, or at most what `int8_work`
    leaves.

    Layers go to float those first that cause most noise for their work. A network is within the budget if the upper
    bound of its loss, one-sided at 95%, is. With `int8_work` alone, the network with the least noise is taken.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [limit]} for limit in ("oks_loss", "ap_loss", "int8_work")],
            "not": {"required": ["oks_loss", "ap_loss"]},
        }
    )

    oks_loss: Loss | None = Field(
        default=None,
        description="How far poses may move: 1 - their mean OKS with the float network's poses as ground truth.",
        json_schema_extra={"unit": "1 - mean OKS"},
    )
    ap_loss: Loss | None = Field(
        default=None,
        description=(
            "How much AP may be lost on the people that decide, by their labels. 0.001 takes thousands of people; a "
            "notice says how many."
        ),
        json_schema_extra={"unit": "AP"},
    )
    int8_work: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=(
            "The least share of the network's multiply-accumulates that stays in INT8. With a limit of loss beside it, "
            "no network with less is tried."
        ),
        json_schema_extra={"unit": "share of work"},
    )
    crops: Crops = 64

    @model_validator(mode="after")
    def _require_a_limit(self) -> "BudgetStep":
        if self.oks_loss is not None and self.ap_loss is not None:
            raise fault("give one of 'oks_loss' and 'ap_loss', not both")
        if self.oks_loss is None and self.ap_loss is None and self.int8_work is None:
            raise fault("give 'oks_loss', 'ap_loss' or 'int8_work'")
        return self


Step = (
    KeepFloatStep
    | SplitDeconvolutionsStep
    | EqualizeStep
    | WeightsStep
    | ActivationsStep
    | CenterStep
    | RoundStep
    | CorrectBiasStep
    | DistillStep
    | FoldStemStep
    | BudgetStep
)


class NamedStep(Settings):
    """One step, by its name, with its settings."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    keep_float: KeepFloatStep | None = Field(default=None, alias="keep-float")
    split_deconvolutions: SplitDeconvolutionsStep | None = Field(default=None, alias="split-deconvolutions")
    equalize: EqualizeStep | None = None
    weights: WeightsStep | None = None
    activations: ActivationsStep | None = None
    center: CenterStep | None = None
    round: RoundStep | None = None
    correct_bias: CorrectBiasStep | None = Field(default=None, alias="correct-bias")
    distill: DistillStep | None = None
    fold_stem: FoldStemStep | None = Field(default=None, alias="fold-stem")
    budget: BudgetStep | None = None

    @model_validator(mode="after")
    def _require_one_step(self) -> "NamedStep":
        if len(self.model_fields_set) != 1:
            raise fault("name exactly one step, such as {round: {}}; each step is an entry of the list by itself")
        return self

    @property
    def name(self) -> str:
        """The step's name in a recipe."""
        (field,) = self.model_fields_set
        return NamedStep.model_fields[field].alias or field

    @property
    def settings(self) -> Step:
        """The step's settings."""
        (field,) = self.model_fields_set
        found: Step = getattr(self, field)
        return found


Steps = Sequence[Mapping[str, Mapping[str, Any]]]
"""The steps of a recipe as they stand in a file, each `{NAME: {SETTING: VALUE}}`."""


class Recipe(RootModel[list[NamedStep]]):
    """Steps, in order: how a network of ncnn is prepared and calibrated for INT8, beyond what ncnn2table does."""

    model_config = ConfigDict(frozen=True, strict=True)

    @classmethod
    def of(cls, steps: "Recipe | Steps") -> "Recipe":
        """Return the recipe that has the steps, defaults filled in.

        Raises:
            InputError: a step or setting is unknown or out of range, or a step stands where it cannot work.
        """
        return steps if isinstance(steps, Recipe) else checked(Recipe, steps, what="the recipe", prefix="recipe.")

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Yield the name and the settings of each step."""
        return ((step.name, step.settings) for step in self.root)

    @property
    def budget(self) -> BudgetStep | None:
        """The budget that the recipe holds, None where it has none."""
        return next((settings for _, settings in self.steps() if isinstance(settings, BudgetStep)), None)

    def filled(self) -> list[dict[str, dict[str, Any]]]:
        """Return the steps as they stand in a file, defaults filled in."""
        return [step.filled() for step in self.root]

    @model_validator(mode="after")
    def _require_order(self) -> "Recipe":
        if faults := list(_misplaced([step.name for step in self.root])):
            raise fault("; ".join(faults))
        return self


SCALES = ("weights", "activations")
# Steps after which scales must be chosen anew.
PREPARING = ("equalize",)


def _misplaced(steps: Sequence[str]) -> Iterator[str]:
    """Yield which of a recipe's steps is missing or stands where it cannot work."""
    yield from (f"no step '{needed}', which chooses scales" for needed in SCALES if needed not in steps)
    if "fold-stem" in steps[:-1]:
        yield "'fold-stem' must be the last step"
    if "budget" in [step for step in steps if step not in ("distill", "fold-stem")][:-1]:
        yield "'budget' must come after all other steps but 'distill' and 'fold-stem'"
    chosen: set[str] = set()
    preparing = ""
    for step in steps:
        after = f"after '{preparing}' " if preparing else ""
        if step in ("center", "round", "correct-bias", "distill", "budget"):
            yield from (f"{after}'{step}' must come after '{needed}'" for needed in SCALES if needed not in chosen)
        if step == "activations" and "weights" not in chosen:
            yield f"{after}'activations' must come after 'weights'"
        if step == "split-deconvolutions" and chosen - {"keep-float"}:
            yield "'split-deconvolutions' must come before all steps but 'keep-float'"
        if step in PREPARING:
            preparing, chosen = step, set()
        chosen.add(step)
    missing = [needed for needed in SCALES if needed in steps and needed not in chosen]
    yield from (f"no step '{needed}' after '{preparing}', which takes scales away" for needed in missing if preparing)


class Curve(Settings):
    """How the curve of calibration people is measured. It is made on request, of rows whose recipe does not distill."""

    people: list[Annotated[int, Field(ge=1)]] = Field(
        default=[32, 64, 128, 256, 512], min_length=1, description="Numbers of people to calibrate on."
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[0, 1, 2], min_length=1, description="Seeds of the choice of people."
    )
