"""Settings of the calibration people, and of the crops of an evaluation set."""

from pydantic import Field

from posequant.workflow.settings.base import Settings

CROPS_LIMIT_GB = 4.0
"""What the crops of a whole evaluation set may take on the disk; larger ones are not kept."""


class Calibration(Settings):
    """The training people by whom activation scales are chosen."""

    people: int = Field(default=128, ge=1, description="How many people are chosen.")
    seed: int = Field(default=0, ge=0, description="Seed of the random choice.")
