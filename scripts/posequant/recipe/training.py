"""What a step that trains takes beside a draft. Without PyTorch, which takes seconds to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from posequant.recipe.draft import Floats
from posequant.recipe.judge import Judge


class CropSource(Protocol):
    """Crops without labels, each time others."""

    def batch(self, generator: np.random.Generator, count: int) -> Floats:
        """Return crops as the network takes them, float32 (count, 3, H, W); they follow from the generator."""


@dataclass(frozen=True)
class Training:
    """What the step takes beside a draft.

    Attributes:
        crops: of people who neither decide nor tell.
        judge: says what a draft is worth, on people who decide.
        checkpoint: the file in which it is kept how far the training is, and which is gone when it is done; None for
            none.
    """

    crops: CropSource
    judge: Judge
    checkpoint: Path | None = None
