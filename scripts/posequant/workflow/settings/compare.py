"""Settings of the comparison of two results."""

from typing import Literal

from pydantic import Field

from posequant.workflow.settings.base import Settings


class Gate(Settings):
    """What may be lost from the first file to the second."""

    tolerance: float = Field(default=0.005, ge=0, le=1, description="The loss of AP that is tolerated.")
    oks_tolerance: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description=(
            "The loss of OKS that is tolerated: of predictions 1 - the mean OKS of the second's poses with the first's "
            "in the place of the truth, of results what is lost of the OKS to FP32. With 1 OKS decides nothing."
        ),
    )
    gate: Literal["bound", "estimate"] = Field(
        default="bound",
        description=(
            "What must be within the tolerance: the upper end of the loss's interval, so that an undecided loss does "
            "not pass, or the loss itself. Where there is no interval it is the loss itself."
        ),
    )
