"""Run a build in a subprocess: one at a time, in its own folder, with a timeout."""

import contextlib
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from export.trt.worker import REQUEST, RESULT
from runtime.atomic import write_bytes
from runtime.errors import FULL_DISK, EdgeError

try:
    import fcntl
except ImportError:  # Windows: concurrent builds are not serialized
    fcntl = None  # type: ignore[assignment]

POLL_S = 0.2
ADDR_NO_RANDOMIZE = 0x0040000  # linux/personality.h
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
NEEDED = "(PATH|LD_LIBRARY_PATH|SYSTEMROOT|CUDA_|NVIDIA_)"
PACKAGES = str(Path(__file__).parents[2])  # the folder that holds this package

Progress = Callable[[str], None]


@contextlib.contextmanager
def alone(engine: Path, progress: Progress) -> Iterator[None]:
    """Serialize builds of the same engine by a lock file."""
    with _writing_near(engine):
        lock = engine.parent / ".work" / f"{engine.name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        if fcntl is not None:
            progress(f"{engine.name}: waiting for another process that builds it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def work_folder(engine: Path) -> Iterator[Path]:
    """Yield an empty folder on the engine's disk, removed afterwards; only within `alone`."""
    folder = engine.parent / ".work" / engine.stem
    with _writing_near(engine):
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _writing_near(engine: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise EdgeError(f"{engine}: the disk is full; make room and run it again") from error
        raise EdgeError(f"{engine}: cannot be written: {error.strerror}") from error


def ask(
    work: Path, question: dict[str, Any], step: str, timeout_s: float, progress: Progress
) -> dict[str, Any]:
    """Have export.trt.worker answer in a subprocess; EdgeError with the status that it reports."""
    write_bytes(work / REQUEST, json.dumps(question).encode())
    printed = work / "printed"
    with printed.open("wb") as file:
        status = _run(work, file, step, timeout_s, progress)
    if not (work / RESULT).is_file():
        raise EdgeError(_how_it_died(status, printed, timeout_s))
    answer: dict[str, Any] = json.loads((work / RESULT).read_bytes())
    if "error" in answer:
        raise EdgeError(answer["error"], answer["status"])
    return answer


def _run(work: Path, out: BinaryIO, step: str, timeout_s: float, progress: Progress) -> int | None:
    """The exit status, None after a timeout; an interrupt ends the subprocess too."""
    process = subprocess.Popen(
        [sys.executable, "-m", "export.trt.worker"],
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        env=_environment(),
        preexec_fn=_fix_addresses if LIBC else None,
    )
    started = time.monotonic()
    try:
        while (seconds := time.monotonic() - started) < timeout_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_S)
            progress(f"{step}, {seconds:.0f} s")
        return None
    finally:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """The environment variables that a builder may need; more would shift its memory addresses."""
    kept = {name: value for name, value in os.environ.items() if re.match(NEEDED, name)}
    return {**kept, "PYTHONPATH": PACKAGES, "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0"}


def _fix_addresses() -> None:
    """Switch off address randomization for the subprocess.

    TensorRT-RTX numbers compiled kernels by pointer order: otherwise each build of the same graph
    has other bytes. Where a container forbids it, engines are equivalent but not byte-equal.
    """
    if LIBC:
        LIBC.personality(ADDR_NO_RANDOMIZE)


def _how_it_died(status: int | None, printed: Path, timeout_s: float) -> str:
    if status is None:
        return (
            f"the builder took longer than {timeout_s:g} s, nothing was written; raise --timeout-s"
        )
    lines = printed.read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    died = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"the builder {died} ({last}), nothing was written; run it again"
