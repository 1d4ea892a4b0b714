"""What this machine's processor is, and what it has for INT8 and for FP16."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

# By the names that Linux gives them in /proc/cpuinfo, `flags` on x86 and `Features` on ARM (arch/x86/include/asm/
# cpufeatures.h and Documentation/arch/arm64/elf_hwcaps.rst of Linux).
_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "asimdhp": "FP16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "BF16",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}


@dataclass(frozen=True)
class Processor:
    """A processor.

    Attributes:
        name: the model's name, or the architecture where Linux does not tell it, as on ARM.
        features: its instructions that matter to INT8 and FP16, by their common names.
        cores: how many this process may use.
    """

    name: str
    features: tuple[str, ...]
    cores: int


def this_processor() -> Processor:
    """Return what Linux tells of this machine's processor; its architecture where Linux does not name the model."""
    text = Path("/proc/cpuinfo").read_text()
    return Processor(
        name=_entry(text, "model name") or platform.machine(),
        features=features_in(text),
        cores=len(os.sched_getaffinity(0)),
    )


def features_in(listing: str) -> tuple[str, ...]:
    """Return the features that a text as that of /proc/cpuinfo names, those of its first core."""
    words = (_entry(listing, "flags") or _entry(listing, "Features")).split()
    return tuple(name for word, name in _FEATURES.items() if word in words)


def _entry(listing: str, key: str) -> str:
    for line in listing.splitlines():
        name, _, text = line.partition(":")
        if name.strip() == key:
            return text.strip()
    return ""
