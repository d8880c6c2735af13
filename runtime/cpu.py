"""The processor's name with the instructions that decide how fast and how exactly INT8 runs."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")  # Linux; elsewhere the name alone
# x86 (VNNI, AMX, BF16) and Arm (dot product, 8-bit matrix multiplication), as Linux spells them.
X86_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
ARM_FEATURES = ("asimddp", "i8mm", "sve")


@functools.cache
def processor() -> str:
    """Such as 'AMD EPYC (avx2 avx512f avx512_vnni)'."""
    try:
        with CPU_INFO.open() as file:
            return _describe(_first_core(file.read(1 << 16)))
    except OSError:
        return platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """The cores that this process may use, which may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first_core(text: str) -> dict[str, str]:
    lines = text.split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _describe(core: dict[str, str]) -> str:
    name = core.get("model name") or platform.machine() or "unknown"
    present = (core.get("flags") or core.get("Features") or "").split()
    telling = [feature for feature in X86_FEATURES + ARM_FEATURES if feature in present]
    return f"{name} ({' '.join(telling)})" if telling else name
