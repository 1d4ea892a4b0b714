"""Settings of what runs on other processors."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from posequant.workflow.settings.base import Settings, each_once, fault
from posequant.workflow.settings.recipe import Target

# Cores that qemu 7.2 knows. The last has all that qemu can.
Core = Literal["cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "max"]
CORES: tuple[str, ...] = get_args(Core)


class Arm(Settings):
    """ARM, emulated: whom an INT8 network is run on there, and on which cores (docs/devices.md)."""

    people: int = Field(
        default=100,
        ge=1,
        description="Images of the evaluation set are chosen at random until they hold so many people.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the choice.")
    cores: Annotated[list[Core], AfterValidator(each_once), Field(min_length=1)] = Field(
        default=["cortex-a53", "cortex-a76"],
        description="Cores, as qemu names them. ncnn chooses other kernels where a core has dot product.",
    )


# Settings without effect where the runner is started by hand, or a core is emulated.
_WITHOUT_SSH = ("ssh_options", "threads", "latency", "rounds", "seconds", "cool", "python", "folder", "keep")


def _own_folder(folder: str) -> str:
    if not folder.startswith(("~/", "/")) or not folder.strip("~/.") or ".." in folder.split("/"):
        raise fault(f"'{folder}' is not a folder of its own, from '~/' or '/' on and without '..'")
    return folder.rstrip("/")


class Device(Settings):
    """A board of your own, or an emulated core, on which a study's rows in ncnn are measured (docs/devices.md)."""

    ssh: str | None = Field(
        default=None,
        description=(
            "Where it is: `USER@HOST`, or a name in your ssh configuration. Keys, ports and jump hosts are as there. "
            "Without this key the runner is started by hand, and `results` says where its results are, or a `core` is "
            "emulated."
        ),
    )
    ssh_options: list[str] = Field(
        default=[], description="More options of the program ssh, each word by itself, such as `[-p, '2222']`."
    )
    results: str | None = Field(
        default=None,
        description="For a device without ssh: folder of the results of `runner.py`, one for each model, `MODEL.zip`.",
    )
    core: Core | None = Field(
        default=None,
        description="A core of ARM, as qemu names it, that is emulated here in place of a device. It is not timed.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="How many threads latency is measured with, beside one. The default is as many as it has cores.",
    )
    people: int = Field(
        default=200,
        ge=1,
        description="Images of the evaluation set are chosen at random until they hold so many people.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of that choice.")
    latency: bool = Field(
        default=True, description="Whether times are measured. On an emulated device they would say nothing."
    )
    rounds: int = Field(
        default=30, ge=1, description="Rounds of latency. In each, every row is run once with each number of threads."
    )
    seconds: float = Field(
        default=300.0,
        gt=0,
        description="How long latency of a model is measured, about, once ten rounds are done.",
        json_schema_extra={"unit": "seconds"},
    )
    cool: float = Field(
        default=60.0,
        ge=0,
        description=(
            "How long to wait between two rounds at most, until temperature and permitted frequency are what they were."
        ),
        json_schema_extra={"unit": "seconds"},
    )
    python: str | None = Field(
        default=None,
        description=(
            "A Python there that has numpy and ncnn. By default an environment is made in `folder`, once, and both are "
            "installed into it by pip."
        ),
    )
    folder: Annotated[str, AfterValidator(_own_folder)] = Field(
        default="~/.cache/posequant",
        description="Folder there for the runner, the environment and, while they are needed, networks and crops.",
    )
    keep: bool = Field(
        default=True,
        description="Whether the runner and the environment stay there for the next time. Nothing else ever does.",
    )
    target: Target | None = Field(
        default=None,
        description=(
            "What the `target` of a study is that names this device. The default is what the features of its cores say."
        ),
    )

    @model_validator(mode="after")
    def _require_a_way(self) -> "Device":
        if sum(way is not None for way in (self.ssh, self.results, self.core)) != 1:
            raise fault(
                "needs one way to it; give 'ssh', or 'results' where the runner is started by hand, or 'core' where it "
                "is emulated"
            )
        elsewhere = () if self.ssh else _WITHOUT_SSH
        fields = type(self).model_fields
        if idle := [key for key in elsewhere if getattr(self, key) != fields[key].get_default()]:
            raise fault(f"'{idle[0]}' has no effect on a device without 'ssh'; remove the key")
        if self.ssh is not None and self.ssh.startswith("-"):
            raise fault(f"'{self.ssh}' is no host; options belong into 'ssh_options'")
        return self
