"""Settings of the demo's dataset."""

from pydantic import Field

from posequant.workflow.settings.base import Settings


class Synthetic(Settings):
    """Drawn people instead of photographs."""

    train_images: int = Field(default=400, ge=1, description="Images to calibrate on.")
    val_images: int = Field(default=300, ge=1, description="Images to evaluate on.")
    seed: int = Field(default=0, ge=0, description="Seed of the generator; everything drawn follows from it.")
