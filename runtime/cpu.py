"""The processor: its name, the instructions that decide how INT8 and FP16 run, and its cores."""

from __future__ import annotations

import functools
import math
import os
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")  # Linux; elsewhere the name alone
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
# x86 (VNNI, AMX, BF16) and Arm (dot and matrix products, FP16), as Linux spells them.
X86_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
ARM_FEATURES = ("asimddp", "i8mm", "bf16", "sve", "fphp", "asimdhp")
# What multiplies 8-bit integers four at a time or more, the fastest first: INT8 gains much with it.
X86_INT8 = ("amx_int8", "avx512_vnni", "avx_vnni")
INT8_DOT_PRODUCTS = (*X86_INT8, "i8mm", "asimddp")
FAST_BF16 = ("amx_bf16", "avx512_bf16")
# Instruction-set levels: two processors of one level compute INT8 alike. The best first.
LEVELS = (*X86_INT8, "avx512f", "avx2", "i8mm", "asimddp")
ARM_MACHINES = ("aarch64", "arm64")
# Bits of getauxval(AT_HWCAP) and (AT_HWCAP2) on 64-bit Arm: asm/hwcap.h in Linux.
AT_HWCAP, AT_HWCAP2 = 16, 26
HWCAP = {"fphp": 9, "asimdhp": 10, "asimddp": 20, "sve": 22}
HWCAP2 = {"i8mm": 13, "bf16": 14}


@functools.cache
def processor() -> str:
    """Such as 'AMD EPYC (avx2 avx512f avx512_vnni)'."""
    name, features = _name(_first_core()), cpu_features()
    if features is None:
        return name
    telling = [feature for feature in X86_FEATURES + ARM_FEATURES if feature in features]
    return f"{name} ({' '.join(telling)})" if telling else name


def instruction_set(processor: str) -> str:
    """The instruction-set level of a processor, as `processor()` describes it: 'avx512_vnni'."""
    return next((name for name in LEVELS if name in processor), platform.machine())


@functools.cache
def cpu_features() -> frozenset[str] | None:
    """Those of X86_FEATURES or ARM_FEATURES that are here; None where that cannot be known."""
    if is_arm():
        capabilities = _arm_capabilities()
        if capabilities is not None:
            return arm_features(*capabilities)
    core = _first_core()
    listed = core.get("flags") or core.get("Features")
    if listed is None:
        return None
    return frozenset(listed.split()) & {*X86_FEATURES, *ARM_FEATURES}


def arm_features(hwcap: int, hwcap2: int) -> frozenset[str]:
    """The ARM_FEATURES in what Linux tells each process of its processor."""
    words = ((HWCAP, hwcap), (HWCAP2, hwcap2))
    return frozenset(name for bits, word in words for name, bit in bits.items() if word >> bit & 1)


def computes_in_fp16() -> bool | None:
    """Whether a CPU has FP16 arithmetic, which runtimes then use; None where it is not known."""
    features = cpu_features()
    return None if features is None else "asimdhp" in features


def is_arm() -> bool:
    """Whether this is a 64-bit Arm processor."""
    return platform.machine() in ARM_MACHINES


def usable_cores() -> int:
    """The cores that this process may use: those of its affinity, or fewer by a cgroup's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cgroup_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _cgroup_quota() -> float | None:
    """The processor time that a container may take, in cores; None without a limit.

    The least of this process's cgroup and all above it, in version 2 or 1. In a container its own
    cgroup is seen as the root.
    """
    quotas = []
    for line in _read(OWN_CGROUP).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            root, read = CGROUPS, _quota_v2
        elif "cpu" in controllers.split(","):
            root, read = CGROUPS / "cpu", _quota_v1
        else:
            continue
        folder = root / path.lstrip("/")
        folders = [folder, *folder.parents]
        quotas += [read(each) for each in folders if each == root or root in each.parents]
    found = [quota for quota in quotas if quota is not None]
    return min(found) if found else None


def _quota_v2(folder: Path) -> float | None:
    """'200000 100000' are two cores; 'max 100000' is no limit."""
    return _ratio(_read(folder / "cpu.max").split())


def _quota_v1(folder: Path) -> float | None:
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # a quota of -1 is no limit
    return _ratio([_read(folder / name).strip() for name in names])


def _ratio(words: list[str]) -> float | None:
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _arm_capabilities() -> tuple[int, int] | None:
    """AT_HWCAP and AT_HWCAP2 of this process: right in emulators and containers too."""
    import ctypes

    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError, TypeError):  # no Linux
        return None
    getauxval.restype = ctypes.c_ulong
    getauxval.argtypes = [ctypes.c_ulong]
    return getauxval(AT_HWCAP), getauxval(AT_HWCAP2)


def _name(core: dict[str, str]) -> str:
    """The model's name; Linux on Arm has numbers instead: 'aarch64 0x41 0xd0c' (Neoverse N1)."""
    if "model name" in core:
        return core["model name"]
    if not core:
        return platform.processor() or platform.machine() or "unknown"
    numbers = (core.get("CPU implementer"), core.get("CPU part"))
    return " ".join(filter(None, (platform.machine(), *numbers))) or "unknown"


@functools.cache
def _first_core() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    lines = _read(CPU_INFO).split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _read(path: Path) -> str:
    """The beginning of a file; "" if it cannot be read."""
    try:
        with path.open(errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""
