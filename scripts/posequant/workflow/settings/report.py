"""Settings of the report."""

from pydantic import Field

from posequant.workflow.settings.base import Settings


class Tolerance(Settings):
    """What a row in reduced precision may lose against FP32 in the same runtime. It decides a row's verdict."""

    oks_loss: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description=(
            "Of OKS to FP32: 1 - the mean OKS of the row's poses with those of FP32 in the place of the truth. The "
            "upper end of the interval must not be larger."
        ),
    )
    ap_loss: float = Field(
        default=0.005,
        gt=0,
        le=1,
        description=("Of AP. It decides where the people suffice, that is where the interval lies on one side of it."),
    )


class Pictures(Settings):
    """Whose poses are shown over their photographs, for every row in reduced precision. Nobody is shown twice."""

    worst: int = Field(default=4, ge=0, le=100, description="How many people: those with the largest loss of OKS.")
    typical: int = Field(default=2, ge=0, le=100, description="How many others: those nearest to the median loss.")
    random: int = Field(default=2, ge=0, le=100, description="How many others: drawn at random.")
    seed: int = Field(default=0, ge=0, description="Seed of the draw. It draws the same people for every row.")
