"""What benchmarks.latency measures, and for how long; imports no library."""

from dataclasses import dataclass

from runtime.cpu import usable_cores

BACKENDS = ("onnxruntime", "openvino", "litert", "ncnn")
OURS = "runtime"  # opens our files for ONNX Runtime on the CPU: with runtime.session
ON_A_GPU = ("tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt")  # timed only if asked for


@dataclass(frozen=True)
class LatencyPlan:
    """`seconds` a row, spread over `rounds`. `peaks`: measure the machine's peak throughput too."""

    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = ()  # none: one, and all cores
    seconds: float = 3.0
    rounds: int = 10
    cold_starts: int = 3
    peaks: bool = True

    def thread_counts(self) -> tuple[int, ...]:
        """All cores first."""
        return tuple(sorted(set(self.threads or (1, usable_cores())), reverse=True))
