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


class EvaluationPeople(Settings):
    """Whether all people of an evaluation set count, or those of some images, for a quick answer."""

    people: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Evaluate on some images only, chosen at random: as many as hold so many annotated people. The default is "
            "all. `--config people=1000` says it for one run (docs/studies.md)."
        ),
    )
    seed: int = Field(
        default=0,
        ge=0,
        description="Seed of that choice. With one seed, the images for fewer people are among those for more.",
    )


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
