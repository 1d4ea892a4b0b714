"""How far two signals are apart: the signal-to-quantization-noise ratio (SQNR)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Of a difference where there is no signal: any is too much.
_LARGEST_RATIO = 1e99


@dataclass(frozen=True)
class Powers:
    """Sums of squares, which can be added up over crops.

    Attributes:
        signal: of the reference's values.
        noise: of the differences from them.
    """

    signal: float
    noise: float

    @classmethod
    def of(cls, reference: Floats, candidate: Floats) -> "Powers":
        """Return those of two arrays of one shape."""
        signal = reference.astype(np.float64)
        return cls(float(np.square(signal).sum()), float(np.square(candidate - signal).sum()))

    @classmethod
    def of_each(cls, reference: Floats, candidate: Floats) -> "list[Powers]":
        """Return those of each of N rows of two arrays (N, ...)."""
        return [cls.of(*pair) for pair in zip(reference, candidate, strict=True)]

    @classmethod
    def total(cls, parts: "Sequence[Powers]") -> "Powers":
        """Return the sum, taken in the order of the parts."""
        return cls(sum(part.signal for part in parts), sum(part.noise for part in parts))

    @property
    def ratio(self) -> float:
        """Noise by signal."""
        return self.noise / self.signal if self.signal else _LARGEST_RATIO * (self.noise > 0)

    @property
    def sqnr_db(self) -> float | None:
        """Signal-to-quantization-noise ratio in dB; None where there is no noise."""
        return -10 * math.log10(self.ratio) if self.noise else None
