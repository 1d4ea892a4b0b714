"""Settings of what runs on other processors."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from posequant.workflow.settings.base import Settings, fault

# Cores that qemu 7.2 knows. The last has all that qemu can.
Core = Literal["cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "max"]
CORES: tuple[str, ...] = get_args(Core)


def _each_once(cores: list[Core]) -> list[Core]:
    if twice := sorted({core for core in cores if cores.count(core) > 1}):
        raise fault(f"{', '.join(map(repr, twice))} is listed twice; name each once")
    return cores


class Arm(Settings):
    """ARM, emulated: whom an INT8 network is run on there, and on which cores (docs/devices.md)."""

    people: int = Field(
        default=100,
        ge=1,
        description="Images of the evaluation set are chosen at random until they hold so many people.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the choice.")
    cores: Annotated[list[Core], AfterValidator(_each_once), Field(min_length=1)] = Field(
        default=["cortex-a53", "cortex-a76"],
        description="Cores, as qemu names them. ncnn chooses other kernels where a core has dot product.",
    )
