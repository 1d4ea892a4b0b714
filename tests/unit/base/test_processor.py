import os

import pytest

from posequant.base.processor import features_in, this_processor

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Processor
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8 avx_vnni
bugs\t\t: spectre_v1
"""
CORE = "flags : fpu sse2 avx avx2 fma avx_vnni\n"
OLD = "flags : fpu sse sse2\n"
PI_5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU part\t: 0xd0b
"""
GRAVITON = "Features\t: fp asimd asimdhp asimddp sve sve2 i8mm bf16\n"


@pytest.mark.parametrize(
    ("listing", "features"),
    [
        (XEON, ("AVX2", "AVX-512", "AVX-VNNI", "AVX-512 VNNI", "AVX-512 BF16", "AMX INT8", "AMX BF16")),
        (CORE, ("AVX2", "AVX-VNNI")),
        (OLD, ()),
        (PI_5, ("NEON", "FP16", "dotprod")),
        (GRAVITON, ("NEON", "FP16", "dotprod", "i8mm", "BF16", "SVE", "SVE2")),
        ("", ()),
    ],
)
def test_features_by_their_common_names(listing: str, features: tuple[str, ...]) -> None:
    assert features_in(listing) == features


def test_this_processor_is_named() -> None:
    processor = this_processor()
    assert processor.name
    assert 1 <= processor.cores <= (os.cpu_count() or 1)
