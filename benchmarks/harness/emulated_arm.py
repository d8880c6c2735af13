"""An ARM computer in software: QEMU's user mode, Debian's Python for arm64, and wheels for it.

Real ARM kernels run, one instruction after another: what they compute is proved, how fast is not.
"""

import functools
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.arm_packages import (
    QEMU,
    bring_qemu,
    bring_userland,
    bring_wheels,
    put,
    run_tool,
)
from runtime.cache import cache_folder
from runtime.errors import EXIT_MISSING, EdgeError

# What QEMU calls a processor, and the numbers by which Linux names it: implementer and part.
CPUS = {
    "cortex-a72": ("0x41", "0xd08"),
    "neoverse-n1": ("0x41", "0xd0c"),
    "max,sve=off": ("0x00", "0x051"),  # with SVE a check takes five times as long
}
# Bits 0 and up of AT_HWCAP and AT_HWCAP2, as /proc/cpuinfo spells them (asm/hwcap.h).
HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma"
    " lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm"
    " svebf16 i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme"
)
SAY_CAPABILITIES = """
import ctypes
getauxval = ctypes.CDLL(None).getauxval
getauxval.restype = ctypes.c_ulong
print(getauxval(16), getauxval(26))
"""
RUN_S = 1800  # an emulated check takes 30 to 420 s


@dataclass(frozen=True)
class EmulatedArm:
    """A processor that runs Python: `root` is its file system, `site` holds its packages."""

    cpu: str
    root: Path
    python: Path
    site: Path
    features: tuple[str, ...]

    def run(
        self,
        arguments: Sequence[str],
        path: Sequence[str | Path] = (),
        cwd: str | Path = ".",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS` with `path` before its packages, whatever its exit status.

        Raises EdgeError after RUN_S seconds.
        """
        settings = {
            "PYTHONPATH": os.pathsep.join(map(str, (*path, self.site))),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(environment or {}),
        }
        given = [word for name, value in settings.items() for word in ("-E", f"{name}={value}")]
        emulator = [QEMU, "-cpu", self.cpu, "-L", str(self.root), *given, str(self.python)]
        try:
            return subprocess.run(
                [*emulator, *arguments], capture_output=True, text=True, timeout=RUN_S, cwd=cwd
            )
        except subprocess.TimeoutExpired as error:
            raise EdgeError(f"{self.cpu}: {arguments[-1]} took longer than {RUN_S} s") from error


def bring_arm(cpu: str, folder: Path | None = None) -> EmulatedArm:
    """Bring what a processor of CPUS needs, from the cache where it is there.

    Raises EdgeError with status 5 where that is not possible.
    """
    bring_qemu()
    folder = folder or default_folder()
    userland = bring_userland(folder)
    python = next((userland / "usr" / "bin").glob("python3.*[0-9]"))
    site = bring_wheels(folder, python.name.removeprefix("python"))
    features = _ask_features(userland, python, cpu)
    root = folder / f"{userland.name}-{re.sub(r'[^a-z0-9]+', '-', cpu)}"
    if not root.is_dir():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            _write_root(Path(work, "root"), userland, cpu, features)
            put(Path(work, "root"), root)
    return EmulatedArm(cpu, root, python, site, features)


def default_folder() -> Path:
    """Where all is kept, 260 MB: the user's cache folder."""
    cache = cache_folder()
    if cache is None:
        raise EdgeError("there is no home for a cache; set XDG_CACHE_HOME", EXIT_MISSING)
    return cache / "arm64"


@functools.cache
def qemu_version() -> str:
    """'7.2.22'."""
    found = re.search(r"version (\S+)", run_tool([QEMU, "--version"], QEMU))
    return found.group(1) if found else "unknown"


def _ask_features(userland: Path, python: Path, cpu: str) -> tuple[str, ...]:
    """What Linux would list for this processor: its own getauxval says."""
    said = run_tool(
        [QEMU, "-cpu", cpu, "-L", str(userland), str(python), "-c", SAY_CAPABILITIES], cpu
    )
    pairs = zip((HWCAP, HWCAP2), map(int, said.split()), strict=True)
    return tuple(
        name for names, word in pairs for bit, name in enumerate(names.split()) if word >> bit & 1
    )


def _write_root(root: Path, userland: Path, cpu: str, features: Sequence[str]) -> None:
    """The userland with this processor's /proc/cpuinfo: onnxruntime crashes on an x86 host's."""
    (root / "proc").mkdir(parents=True)
    for name in ("bin", "etc", "lib", "sbin", "usr"):
        (root / name).symlink_to(userland / name)
    implementer, part = CPUS[cpu]
    core = (
        f"BogoMIPS\t: 100.00\nFeatures\t: {' '.join(features)}\nCPU implementer\t: {implementer}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 0\n\n"
    )
    cores = [f"processor\t: {number}\n{core}" for number in range(os.cpu_count() or 1)]
    (root / "proc" / "cpuinfo").write_text("".join(cores))
