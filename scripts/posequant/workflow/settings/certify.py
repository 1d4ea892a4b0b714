"""Settings of the certificate."""

from pydantic import Field

from posequant.workflow.settings.base import Settings


class Sampling(Settings):
    """The confidence intervals of certificates: a bootstrap over the evaluation images."""

    resamples: int = Field(default=2000, ge=100, description="How many times the images are drawn.")
    seed: int = Field(default=0, ge=0, description="Seed of the draws.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Confidence level of the intervals.")
