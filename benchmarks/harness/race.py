"""Contenders take turns, each in a process of its own, so that all see the same load and caches."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.machine import Bystanders
from runtime.drift import Fidelity
from runtime.errors import EXIT_MISSING, EdgeError

TURNS = 10
WORDS_OF_ERROR = 300  # characters


@dataclass(frozen=True)
class Contender:
    """What enlarges faces: `file`, opened by one of worker.OPENERS.

    `model`, whose network it computes; `precision`, what it is computed in; `peer`: others' work,
    or ours. `bytes` of the file, and of what belongs to it.
    """

    name: str
    model: str
    backend: str
    precision: str
    opener: str
    file: Path
    peer: bool = False

    @property
    def bytes(self) -> int:
        weights = self.file.with_suffix(".bin")  # of OpenVINO's .xml
        beside = weights.stat().st_size if self.file.suffix == ".xml" else 0
        return self.file.stat().st_size + beside


@dataclass(frozen=True)
class Timing:
    """All times of one contender at one batch; `turns_ms` is the median of each turn.

    `cpu_ms`: what one run takes of all cores together.
    """

    times_ms: tuple[float, ...]
    turns_ms: tuple[float, ...]
    cpu_ms: float
    peak_mib: float
    others_share: float

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.times_ms, percent))

    @property
    def p50_ms(self) -> float:
        return self.percentile_ms(50)


class Worker:
    """A contender, open in its own process; a context manager. EdgeError if it fails."""

    def __init__(
        self, contender: Contender, threads: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.contender, self.threads = contender, threads
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe would be full some day
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.harness.worker"),
                *(contender.opener, str(contender.file), str(threads)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, **_where_we_are(), **(environment or {})},
        )
        try:
            self._answer()
        except EdgeError:
            self.close()
            raise
        self.cold_start_ms = (time.perf_counter() - start) * 1e3

    def time(self, batch: int, seconds: float) -> dict[str, Any]:
        """{times_ms, cpu_s, peak_mib} of runs for about that long."""
        return self._ask({"batch": batch, "seconds": seconds})

    def fidelity(self, probes: Path) -> Fidelity:
        return Fidelity(**self._ask({"probes": str(probes)}))

    def close(self) -> None:
        """End the process, which holds nothing that is worth its going by itself."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(OSError):  # of a question that it did not live to read
            self._process.stdin.close()
        self._process.stdout.close()
        self._said.close()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # _answer says why
            print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            said = self._said.read().strip().splitlines() or ["no word"]
            name = self.contender.name
            raise EdgeError(
                f"{name}: cannot be measured in {self.contender.backend}:"
                f" {said[-1][:WORDS_OF_ERROR]}; leave it out, or install what it needs:"
                " pip install 'aminet-edge[bench]'",
                EXIT_MISSING if "ModuleNotFoundError" in said[-1] else 1,
            )
        return dict(json.loads(line))

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def race(workers: Sequence[Worker], batch: int, seconds: float, turns: int = TURNS) -> list[Timing]:
    """Time each worker for about `seconds`, in that many turns: A B C, A B C, ..."""
    answers: list[list[dict[str, Any]]] = [[] for _ in workers]
    seen = [Bystanders() for _ in workers]
    for _ in range(turns):
        for worker, answered, bystanders in zip(workers, answers, seen, strict=True):
            bystanders.start()
            answered.append(worker.time(batch, seconds / turns))
            bystanders.stop(answered[-1]["cpu_s"])
    return [
        Timing(
            times_ms=tuple(ms for answer in answered for ms in answer["times_ms"]),
            turns_ms=tuple(float(np.median(answer["times_ms"])) for answer in answered),
            cpu_ms=1e3
            * sum(answer["cpu_s"] for answer in answered)
            / sum(1 + len(answer["times_ms"]) for answer in answered),  # 1: the run to warm up
            peak_mib=max(answer["peak_mib"] for answer in answered),
            others_share=bystanders.share,
        )
        for answered, bystanders in zip(answers, seen, strict=True)
    ]


def _where_we_are() -> dict[str, str]:
    """So that the process imports these very files, wherever it is started."""
    root = str(Path(__file__).parents[2])
    return {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
