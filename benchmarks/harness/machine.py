"""The machine that figures were measured on, and who else was using it meanwhile."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from runtime.cpu import processor

ROOT = Path(__file__).parents[2]
TOOLS = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "numpy")
# What decides how INT8 runs, the best first; a processor is of the first level that it has.
LEVELS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp")
QUIET_SHARE = 0.1  # of the processor's time that others may take
STAT = Path("/proc/stat")  # Linux; elsewhere nobody is seen
HERTZ = 100  # of the kernel's clock in STAT, on every Linux of today


@dataclass(frozen=True)
class Machine:
    """Where and when. `commit` ends in '+' if files were changed since; None outside a checkout."""

    processor: str
    level: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    commit: str | None
    date: str
    load_average: tuple[float, float, float]


def machine() -> Machine:
    """This machine, now."""
    return Machine(
        processor=processor(),
        level=level(processor()),
        cores=cores(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions(),
        commit=commit(),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        load_average=os.getloadavg(),
    )


def level(processor: str) -> str:
    """The instruction-set level of a processor, as `processor()` describes it: 'avx512_vnni'."""
    return next((name for name in LEVELS if name in processor), platform.machine())


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(tools: Sequence[str] = TOOLS) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for tool in tools:
        try:
            found[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True)
    return done.stdout.decode().strip()


class Bystanders:
    """How much of the processor others take, from one reading of the clocks to another."""

    def __init__(self) -> None:
        self._others_s = self._wall_s = 0.0
        self._start = self._clocks()

    def start(self) -> None:
        self._start = self._clocks()

    def stop(self, ours_s: float) -> None:
        """End a window in which our processes computed for `ours_s` seconds."""
        busy_s, wall_s = (
            end - start for end, start in zip(self._clocks(), self._start, strict=True)
        )
        self._others_s += max(0.0, busy_s - ours_s)
        self._wall_s += wall_s

    @property
    def share(self) -> float:
        """Of all cores, 0 to 1, over all windows."""
        return min(1.0, self._others_s / (self._wall_s * cores())) if self._wall_s else 0.0

    @staticmethod
    def _clocks() -> tuple[float, float]:
        return busy_seconds(), time.monotonic()


def busy_seconds() -> float:
    """What all cores have computed since the machine started, time stolen by its host included."""
    try:
        with STAT.open() as file:
            user, nice, system, _, _, irq, soft, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + irq + soft + steal) / HERTZ
