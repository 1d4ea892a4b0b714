"""Settings of the certificate."""

from pydantic import Field

from posequant.workflow.settings.base import Settings


class Sampling(Settings):
    """How sure the cost of reduced precision is said to be: a bootstrap over the evaluation images."""

    resamples: int = Field(default=2000, ge=100, description="How many times the images are drawn.")
    seed: int = Field(default=0, ge=0, description="Seed of the draws.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Share of the draws that an interval holds.")
