"""Settings of the people that networks see."""

from pydantic import Field

from posequant.workflow.settings.base import Settings


class Calibration(Settings):
    """The training people that INT8 networks are calibrated on.

    For a recipe, half of them are seen by its steps, a quarter decides which steps are kept, and a quarter tells the
    outcome.
    """

    people: int = Field(
        default=128, ge=1, description="How many people are chosen. A recipe with a budget wants 256 or more."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the random choice.")


class EvaluationCrops(Settings):
    """Whether the crops of the evaluation people are kept, for all rows of a model."""

    limit_gb: float = Field(
        default=4.0,
        ge=0,
        description=(
            "What the crops of a model may take on the disk, in GB. Where they would take more, every prediction cuts "
            "them out of the images anew."
        ),
    )
