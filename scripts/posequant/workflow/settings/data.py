"""Settings of the calibration people."""

from pydantic import Field

from posequant.workflow.settings.base import Settings


class Calibration(Settings):
    """The training people by whom activation scales are chosen."""

    people: int = Field(default=128, ge=1, description="How many people are chosen.")
    seed: int = Field(default=0, ge=0, description="Seed of the random choice.")
