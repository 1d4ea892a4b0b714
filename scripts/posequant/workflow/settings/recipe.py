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


class KeepFloatStep(Settings):
    """Leaves layers in float."""

    types: list[Literal["Convolution", "ConvolutionDepthWise", "InnerProduct"]] = Field(
        default=[], description="All layers of these ncnn types."
    )
    layers: list[str] = Field(default=[], description="Layers by their names in the `.param`.")


class EqualizeStep(Settings):
    """Brings the channels of a tensor to similar ranges. In float, the output stays exactly the same."""

    strength: float = Field(default=0.5, ge=0, le=1, description="0 changes nothing, 1 makes all ranges equal.")
    crops: Crops = 64


class WeightsStep(Settings):
    """Chooses the scales of the weights."""

    bits: Literal[6, 8] = Field(
        default=8,
        description=(
            "Bits of the weights of 3x3 convolutions of stride 1. 6 is as ncnn2table does it; 8 switches Winograd off "
            "where it could overflow. All other layers have 8."
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


class BudgetStep(Settings):
    """Keeps as few layers in float as a budget of `oks_loss` or `ap_loss` allows.

    A network is within the budget if the upper bound of its loss, one-sided at 95%, is. A quarter of the calibration
    people decides, and a quarter only measures the outcome. The other steps of the recipe see the rest. A step that
    makes the outputs worse for the people that decide is undone.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["oks_loss"]}, {"required": ["ap_loss"]}]})

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
    crops: Crops = 64

    @model_validator(mode="after")
    def _require_one_limit(self) -> "BudgetStep":
        if (self.oks_loss is None) == (self.ap_loss is None):
            raise fault("give exactly one of 'oks_loss', 'ap_loss'")
        return self


Step = KeepFloatStep | EqualizeStep | WeightsStep | ActivationsStep | RoundStep | CorrectBiasStep | BudgetStep


class NamedStep(Settings):
    """One step, by its name, with its settings."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    keep_float: KeepFloatStep | None = Field(default=None, alias="keep-float")
    equalize: EqualizeStep | None = None
    weights: WeightsStep | None = None
    activations: ActivationsStep | None = None
    round: RoundStep | None = None
    correct_bias: CorrectBiasStep | None = Field(default=None, alias="correct-bias")
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


def _misplaced(steps: Sequence[str]) -> Iterator[str]:
    """Yield which of a recipe's steps is missing or stands where it cannot work."""
    scales = ("weights", "activations")
    yield from (f"no step '{needed}', which chooses scales" for needed in scales if needed not in steps)
    if "budget" in steps[:-1]:
        yield "'budget' must be the last step"
    for place, step in enumerate(steps):
        if step in ("round", "correct-bias", "budget"):
            yield from (f"'{step}' must come after '{needed}'" for needed in scales if needed not in steps[:place])
        if step == "activations" and "weights" not in steps[:place]:
            yield "'activations' must come after 'weights'"
        if step == "equalize" and any(earlier in scales for earlier in steps[:place]):
            yield "'equalize' must come before 'weights' and 'activations'"


class Curve(Settings):
    """How the curve of calibration people is measured; it is made on request."""

    people: list[Annotated[int, Field(ge=1)]] = Field(
        default=[32, 64, 128, 256, 512], min_length=1, description="Numbers of people to calibrate on."
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[0, 1, 2], min_length=1, description="Seeds of the choice of people."
    )
