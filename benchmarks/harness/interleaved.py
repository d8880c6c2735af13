"""Interleaved benchmark: candidates in processes of their own are timed A B C, A B C, ...

So all see the same background load, and none the memory, caches or threads of another.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.machine import BackgroundLoad
from runtime.drift import Fidelity
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import LR_SIDE
from runtime.spinning import as_usual

MAX_ERROR_CHARACTERS = 300


@dataclass(frozen=True)
class BenchmarkCandidate:
    """A file that upscales faces, opened by one of worker.OPENERS.

    `model` is the network that it computes, with `macs` multiply-adds a face and `probes`;
    `precision` is what it is computed in. `baseline`: another tool's file, not one of our
    artifacts. `sha256` is an artifact's. Inputs are
    (batch, 3, lr_side, lr_side).
    """

    name: str
    model: str
    backend: str
    precision: str
    opener: str
    file: Path
    macs: int
    probes: Path
    baseline: bool = False
    sha256: str | None = None
    lr_side: int = LR_SIDE

    @property
    def bytes(self) -> int:
        weights = self.file.with_suffix(".bin")  # of OpenVINO's .xml
        beside = weights.stat().st_size if self.file.suffix in (".xml", ".param") else 0
        return self.file.stat().st_size + beside


@dataclass(frozen=True)
class Timing:
    """All times of one candidate at one batch size; `rounds_ms` has each round's median.

    `background_share` is the part of the CPU that other processes took meanwhile.
    """

    times_ms: tuple[float, ...]
    rounds_ms: tuple[float, ...]
    peak_mib: float
    background_share: float

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.times_ms, percent))

    @property
    def p50_ms(self) -> float:
        return self.percentile_ms(50)


class Worker:
    """A candidate, open in its own process; a context manager. EdgeError if it fails."""

    def __init__(
        self,
        candidate: BenchmarkCandidate,
        threads: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.candidate, self.threads = candidate, threads
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe would fill up
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.harness.worker",
                candidate.opener,
                str(candidate.file),
                str(threads),
                str(candidate.lr_side),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**as_usual(os.environ), **_import_path(), **(environment or {})},
        )
        try:
            self._answer()
        except EdgeError:
            self.close()
            raise
        self.cold_start_ms = (time.perf_counter() - start) * 1e3

    def time(self, batch: int, seconds: float) -> dict[str, Any]:
        """Run for about that long; return {times_ms, cpu_s, peak_mib}."""
        return self._ask({"batch": batch, "seconds": seconds})

    def fidelity(self) -> Fidelity:
        return Fidelity(**self._ask({"probes": str(self.candidate.probes)}))

    def close(self) -> None:
        """End the process, which holds nothing that must be saved."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(OSError):  # of a question that it did not live to read
            self._process.stdin.close()
        self._process.stdout.close()
        self._stderr.close()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # _answer reports why
            print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._stderr.seek(0)
            reported = self._stderr.read().strip().splitlines() or ["no error message"]
            raise EdgeError(
                f"{self.candidate.name}: cannot be measured in {self.candidate.backend}:"
                f" {reported[-1][:MAX_ERROR_CHARACTERS]}; leave it out, or install what it needs:"
                " pip install 'aminet-edge[bench]'",
                EXIT_MISSING if "ModuleNotFoundError" in reported[-1] else 1,
            )
        return dict(json.loads(line))

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def time_interleaved(
    workers: Sequence[Worker], batch: int, seconds: float, rounds: int
) -> list[Timing]:
    """Time each worker for about `seconds`, spread over that many rounds."""
    answers: list[list[dict[str, Any]]] = [[] for _ in workers]
    loads = [BackgroundLoad() for _ in workers]
    for _ in range(rounds):
        for worker, answered, load in zip(workers, answers, loads, strict=True):
            load.start()
            answered.append(worker.time(batch, seconds / rounds))
            load.stop(answered[-1]["cpu_s"])
    return [
        Timing(
            times_ms=tuple(ms for answer in answered for ms in answer["times_ms"]),
            rounds_ms=tuple(float(np.median(answer["times_ms"])) for answer in answered),
            peak_mib=max(answer["peak_mib"] for answer in answered),
            background_share=load.share,
        )
        for answered, load in zip(answers, loads, strict=True)
    ]


def speedup(rounds_ms: Sequence[float], reference_ms: Sequence[float]) -> float:
    """Return how many times as fast as the reference; over 1 is faster.

    The median over the rounds, in each of which both saw the same background load.
    """
    return statistics.median(
        reference / own for own, reference in zip(rounds_ms, reference_ms, strict=True)
    )


def _import_path() -> dict[str, str]:
    """PYTHONPATH by which the process imports these very files, wherever it is started."""
    root = str(Path(__file__).parents[2])
    return {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
