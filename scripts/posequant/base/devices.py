"""What is said of a device that a network ran on, other than the CPU."""

from collections.abc import Mapping
from typing import Any

SOFTWARE = "CPU"
"""Kind of a device that is no GPU: a driver that computes on the processor, such as Mesa's llvmpipe."""


def is_software(device: Mapping[str, Any] | None) -> bool:
    """Whether a device, as it is recorded, is no GPU, so that times are not those of one; None is the CPU itself."""
    return device is not None and device["kind"] == SOFTWARE


def device_words(device: Mapping[str, Any]) -> str:
    """Return a device in words, as it is recorded: its name, whether it is a GPU, and what ran otherwise than asked."""
    kind = "a driver that computes on the processor and is no GPU" if is_software(device) else device["kind"]
    said = [device["name"], kind]
    if device.get("fp16") == "storage":
        said.append("which holds values in float16 and sums them in float32")
    if device.get("on_cpu"):
        said.append(f"layers without a Vulkan kernel on the CPU ({', '.join(device['on_cpu'])})")
    return ", ".join(said)
