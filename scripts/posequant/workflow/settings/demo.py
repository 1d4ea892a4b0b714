"""Settings of a dataset that is drawn."""

from typing import Literal

from pydantic import Field

from posequant.workflow.settings.base import Settings

# The set of keypoints of each kind.
DRAWN_KEYPOINTS = {"person": "coco", "hand": "coco_wholebody_hand"}


class Synthetic(Settings):
    """Drawn people or hands instead of photographs."""

    kind: Literal["person", "hand"] = Field(
        default="person",
        description=(
            "What is drawn: people with COCO's keypoints, or hands with those that mmpose calls `coco_wholebody_hand`."
        ),
    )
    train_images: int = Field(default=400, ge=1, description="Images to calibrate on.")
    val_images: int = Field(default=300, ge=1, description="Images to evaluate on.")
    seed: int = Field(default=0, ge=0, description="Seed of the generator; everything drawn follows from it.")
