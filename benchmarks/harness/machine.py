"""The machine that a benchmark ran on, and the background CPU load while it ran."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from runtime.cpu import instruction_set, processor, usable_cores

ROOT = Path(__file__).parents[2]
TOOLS = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "numpy")
# Background processes may take this share of the usable cores; above it nothing is comparable.
BUSY_SHARE = 0.1
STAT = Path("/proc/stat")  # Linux; elsewhere no background load is seen
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
    """Describe this machine, now."""
    return Machine(
        processor=processor(),
        level=instruction_set(processor()),
        cores=usable_cores(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions(),
        commit=commit(),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        load_average=os.getloadavg(),
    )


def versions(tools: Sequence[str] = TOOLS) -> dict[str, str]:
    """Return the versions of the tools that are installed."""
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


class BackgroundLoad:
    """CPU time that processes other than ours took, summed over measured windows."""

    def __init__(self) -> None:
        self._background_s = self._available_s = 0.0
        self._start = self._clocks()

    def start(self) -> None:
        self._start = self._clocks()

    def stop(self, own_cpu_s: float) -> None:
        """End a window in which our own processes took `own_cpu_s` seconds of CPU time."""
        busy_s, wall_s = (
            end - start for end, start in zip(self._clocks(), self._start, strict=True)
        )
        self._background_s += max(0.0, busy_s - own_cpu_s)
        self._available_s += wall_s * usable_cores()

    @property
    def share(self) -> float:
        """Background CPU time over the time of all usable cores, 0 to 1."""
        return min(1.0, self._background_s / self._available_s) if self._available_s else 0.0

    @staticmethod
    def _clocks() -> tuple[float, float]:
        return busy_seconds(), time.monotonic()


def background_share(seconds: float) -> float:
    """Sample the background load while this process sleeps for some seconds; 0 to 1."""
    load = BackgroundLoad()
    time.sleep(seconds)
    load.stop(0.0)
    return load.share


def busy_seconds() -> float:
    """Return the CPU seconds that the usable cores have spent since boot, stolen time included."""
    usable = {f"cpu{core}" for core in _affinity()}
    try:
        rows = [line.split() for line in STAT.read_text().splitlines() if line.startswith("cpu")]
        ticks = sum(
            sum(map(int, (user, nice, system, irq, soft, steal)))
            for name, user, nice, system, _idle, _wait, irq, soft, steal, *_ in rows
            if name in usable or (not usable and name == "cpu")
        )
    except (OSError, ValueError):
        return 0.0
    return ticks / HERTZ


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
