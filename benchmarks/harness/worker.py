"""A process that holds one candidate: `python -m benchmarks.harness.worker OPENER ...`.

Memory and cold start are the candidate's own, and no library's threads slow another's. Each JSON
line on stdin is answered by one on stdout; benchmarks.harness.interleaved starts it.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.plan import ON_A_GPU, OURS
from runtime import drift
from runtime.artifact import read_artifact
from runtime.backends.onnxruntime import import_onnxruntime
from runtime.backends.open import open_backend
from runtime.backends.openvino import import_openvino
from runtime.image import Tensor

Run = Callable[[Tensor], Tensor]
STATUS = Path("/proc/self/status")
SILENT = 4  # onnxruntime's severity 'fatal'


def open_onnxruntime(file: str, threads: int) -> Run:
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = SILENT
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    return lambda lr: session.run(["sr"], {"lr": lr})[0]


def open_ours(file: str, threads: int) -> Run:
    """Open an artifact as runtime.infer does, which shares a batch between the threads itself."""
    from runtime.session import open_session

    return open_session(file, "onnxruntime", threads=threads, verify=False).run


def open_openvino(file: str, threads: int, precision: str = "f32") -> Run:
    openvino = import_openvino()
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
    """Open a checkpoint in PyTorch."""
    import torch

    from aminet.checkpoint import load_model

    torch.set_num_threads(threads)
    network, _ = load_model(checkpoint=file)
    # Compiled anew for each batch size, which is the fastest that it offers.
    forward = torch.compile(network, dynamic=False) if compiled else network

    def run(lr: Tensor) -> Tensor:
        with torch.inference_mode():
            return forward(torch.from_numpy(lr)).numpy()

    return run


def open_torch_compile(file: str, threads: int) -> Run:
    return open_torch(file, threads, compiled=True)


def open_litert(file: str, threads: int) -> Run:
    from runtime.backends.litert import LiteRtSession

    return LiteRtSession(Path(file).read_bytes(), file, threads).run


def open_ncnn(file: str, threads: int) -> Run:
    from runtime.backends.ncnn import NcnnSession

    path = Path(file)
    weights = path.with_suffix(".bin").read_bytes()
    return NcnnSession(path.read_bytes(), weights, file, threads).run


def open_on_gpu(backend: str) -> Callable[[str, int], Run]:
    """An engine, or an ONNX file in ONNX Runtime on the GPU alone, from host memory to it."""

    def open_file(file: str, threads: int) -> Run:
        return open_backend(backend, read_artifact(Path(file))).run

    return open_file


OPENERS: Mapping[str, Callable[[str, int], Run]] = {
    OURS: open_ours,
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "openvino-bf16": open_openvino_bf16,
    "litert": open_litert,
    "ncnn": open_ncnn,
    "torch": open_torch,
    "torch.compile": open_torch_compile,
    **{backend: open_on_gpu(backend) for backend in ON_A_GPU},
}


def one_by_one(run: Run) -> Run:
    """Run faces one at a time, as in use; no batch size is compiled only for the probes."""
    return lambda lr: np.concatenate([run(face[None]) for face in lr])


def time_runs(run: Run, lr: Tensor, seconds: float) -> dict[str, Any]:
    """Time runs for about this long, after a warm-up run: the caches held another candidate."""
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
    """Return the peak resident memory of this process."""
    try:
        lines = STATUS.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def main() -> int:
    opener, file, threads, lr_side = sys.argv[1:]
    side = int(lr_side)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with answers

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    run = OPENERS[opener](file, int(threads))
    run(np.zeros((1, 3, side, side), np.float32))
    answer({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        if "probes" in asked:
            answer(asdict(drift.measure(one_by_one(run), drift.read_probes(asked["probes"]))))
        else:
            shape = (asked["batch"], 3, side, side)
            lr = np.random.default_rng(0).random(shape, dtype=np.float32)
            answer(time_runs(run, lr, asked["seconds"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
