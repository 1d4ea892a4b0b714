"""The Vulkan devices that ncnn finds, and the one that a network is to run on."""

from collections.abc import Sequence
from dataclasses import dataclass

import ncnn

from posequant.base.devices import SOFTWARE
from posequant.base.errors import InputError
from posequant.base.supervision import doing

# By ncnn's numbers (src/gpu.h, GpuInfo::type).
_KINDS = ("discrete GPU", "integrated GPU", "virtual GPU", SOFTWARE)


@dataclass(frozen=True)
class Device:
    """A Vulkan device.

    Attributes:
        index: its number in ncnn.
        name: what its driver calls it.
        kind: `discrete GPU`, `integrated GPU`, `virtual GPU` or `SOFTWARE`.
        driver: the driver's version, a number that each maker writes in its own way.
    """

    index: int
    name: str
    kind: str
    driver: int

    def __str__(self) -> str:
        """Return number, name and kind, for lists."""
        return f"{self.index}: {self.name}, {self.kind}"


def vulkan_devices() -> list[Device]:
    """Return all Vulkan devices; `InputError` where there is none.

    It starts Vulkan in this process, which no process forked afterwards can use.
    """
    with doing("looked for Vulkan devices, by the drivers that are installed"):
        infos = [ncnn.get_gpu_info(index) for index in range(ncnn.get_gpu_count())]
    if not infos:
        raise InputError(
            "there is no Vulkan device. Install the driver of the GPU, or Mesa's, which also compute on the processor "
            "(on Debian: apt-get install mesa-vulkan-drivers libvulkan1); or leave rows of ncnn-vulkan out."
        )
    return [
        Device(index, info.device_name(), _KINDS[info.type()], info.driver_version())
        for index, info in enumerate(infos)
    ]


def find_device(wanted: str | None = None) -> Device:
    """Return a Vulkan device.

    Args:
        wanted: as for `choose_device`. None for ncnn's choice: a discrete GPU before an integrated one, and both before
            any other.

    Raises:
        InputError: there is no such device. The message lists those that there are.
    """
    devices = vulkan_devices()
    if wanted is None:
        default: int = ncnn.get_default_gpu_index()
        return devices[default]
    return choose_device(devices, wanted)


def choose_device(devices: Sequence[Device], wanted: str) -> Device:
    """Return one of some devices.

    Args:
        devices: in ncnn's order.
        wanted: its number, its name, or a part of that in small or capital letters. Of several that have the part, the
            first is taken.

    Raises:
        InputError: there is none. The message lists those that there are.
    """
    if wanted.isdigit():
        fitting: Sequence[Device] = devices[int(wanted) : int(wanted) + 1]
    else:
        # A name may be the beginning of another's, as "RTX 3080" is of "RTX 3080 Ti".
        fitting = [device for device in devices if wanted == device.name] or [
            device for device in devices if wanted.lower() in device.name.lower()
        ]
    if not fitting:
        raise InputError(
            f"there is no Vulkan device '{wanted}'. There are {'; '.join(map(str, devices))}. Give the number of one, "
            "or a part of its name."
        )
    return fitting[0]
