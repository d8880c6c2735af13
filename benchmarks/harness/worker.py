"""A process that holds one candidate: `python -m benchmarks.harness.worker OPENER ...`.

So its memory and its cold start are its own, and the threads of one library cannot slow another's.
It answers each JSON line on stdin with one on stdout; benchmarks.harness.race talks to it.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime import drift
from runtime.image import LR_SIDE, Tensor

Run = Callable[[Tensor], Tensor]
STATUS = Path("/proc/self/status")
SILENT = 4  # onnxruntime's severity 'fatal'


ORT_SETTINGS: Mapping[str, Mapping[str, Any]] = {  # of its SessionOptions, beside the defaults
    "defaults": {},
    "no memory arena": {"enable_cpu_mem_arena": False},
    "no memory pattern": {"enable_mem_pattern": False},
    "parallel branches": {"execution_mode": "ORT_PARALLEL"},
    "extended optimizations": {"graph_optimization_level": "ORT_ENABLE_EXTENDED"},
    "basic optimizations": {"graph_optimization_level": "ORT_ENABLE_BASIC"},
    "no optimizations": {"graph_optimization_level": "ORT_DISABLE_ALL"},
    "no spinning": {"session.intra_op.allow_spinning": "0"},
}


def open_onnxruntime(file: str, threads: int, setting: str = "defaults") -> Run:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = SILENT
    settings.intra_op_num_threads = threads
    enumerations = {
        "execution_mode": onnxruntime.ExecutionMode,
        "graph_optimization_level": onnxruntime.GraphOptimizationLevel,
    }
    for name, value in ORT_SETTINGS[setting].items():
        if name.startswith("session."):
            settings.add_session_config_entry(name, value)
        else:
            kind = enumerations.get(name)
            setattr(settings, name, getattr(kind, value) if kind else value)
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    return lambda lr: session.run(["sr"], {"lr": lr})[0]


def open_openvino(file: str, threads: int, precision: str = "f32") -> Run:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(file, "CPU", settings).create_infer_request()
    return lambda lr: request.infer({"lr": lr})[0]


def open_openvino_bf16(file: str, threads: int) -> Run:
    return open_openvino(file, threads, "bf16")


def open_torch(file: str, threads: int, *, compiled: bool = False) -> Run:
    """A checkpoint in PyTorch."""
    import torch

    from aminet.checkpoint import load_model

    torch.set_num_threads(threads)
    network, _ = load_model(checkpoint=file)
    # Each batch is compiled for itself, which is the quickest that can be had.
    forward = torch.compile(network, dynamic=False) if compiled else network

    def run(lr: Tensor) -> Tensor:
        with torch.inference_mode():
            return forward(torch.from_numpy(lr)).numpy()

    return run


def open_torch_compile(file: str, threads: int) -> Run:
    return open_torch(file, threads, compiled=True)


OPENERS: Mapping[str, Callable[[str, int], Run]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "openvino-bf16": open_openvino_bf16,
    "torch": open_torch,
    "torch.compile": open_torch_compile,
    **{f"onnxruntime, {name}": partial(open_onnxruntime, setting=name) for name in ORT_SETTINGS},
}


def one_by_one(run: Run) -> Run:
    """As faces come in use; and no batch is compiled for the probes' sake."""
    return lambda lr: np.concatenate([run(face[None]) for face in lr])


def time_runs(run: Run, batch: int, seconds: float) -> dict[str, Any]:
    """Run for about this long, after a run that does not count: others have had the caches."""
    lr = np.random.default_rng(0).random((batch, 3, LR_SIDE, LR_SIDE), dtype=np.float32)
    cpu_s = time.process_time()
    run(lr)
    times_ms: list[float] = []
    deadline = time.perf_counter() + seconds
    while not times_ms or time.perf_counter() < deadline:
        start = time.perf_counter()
        run(lr)
        times_ms.append((time.perf_counter() - start) * 1e3)
    cpu_s = time.process_time() - cpu_s
    return {"times_ms": times_ms, "cpu_s": cpu_s, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """The most memory that this process has held."""
    try:
        lines = STATUS.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def main() -> int:
    opener, file, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    run = OPENERS[opener](file, int(threads))
    run(np.zeros((1, 3, LR_SIDE, LR_SIDE), np.float32))
    answer({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        if "probes" in asked:
            answer(asdict(drift.measure(one_by_one(run), drift.read_probes(asked["probes"]))))
        else:
            answer(time_runs(run, asked["batch"], asked["seconds"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
