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
