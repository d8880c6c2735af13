"""Do everything that waits for a GPU: `python -m benchmarks.gpu --data TAR... --val TAR...`.

Trains the paper's networks, distils aminet-edge, exports, quantizes and compiles them, measures
engines and providers, and runs the tests that need a GPU. Each step is a command of the project in
a process of its own, with its own share of --minutes. Steps that are done are left out by the next
call, a training that was stopped goes on, a step that fails is reported and the next one begins.
--rehearse trains for two steps on the CPU and leaves out what needs a GPU, to try the script.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.atomic import write_bytes
from runtime.errors import EXIT_ERROR, EXIT_USAGE, EdgeError, run_command

DONE = "done.json"  # in --out: the steps that have ended well
BATCH = 256
REHEARSAL = ("--steps", "2", "--batch", "4", "--device", "cpu", "--no-amp")


@dataclass(frozen=True)
class Step:
    """A command, and the share of the minutes that it trains for (0: as long as it takes)."""

    name: str
    command: tuple[str, ...]  # module and arguments; "pytest" is run as a module, too
    share: float = 0.0
    needs_gpu: bool = False


@dataclass(frozen=True)
class StepResult:
    """What became of a step; `seconds` of this call."""

    name: str
    command: str
    status: int
    seconds: float


@dataclass(frozen=True)
class GpuPlan:
    """Where the faces are, where the runs go, and for how long to train altogether."""

    data: tuple[str, ...]
    val: tuple[str, ...]
    out: Path
    minutes: float
    rehearse: bool = False

    def best(self, model: str) -> str:
        return str(self.out / model / "best.safetensors")


def steps(plan: GpuPlan) -> list[Step]:
    """All steps in order: the larger network first, since the smaller ones imitate it."""
    rate = ("--rate", "2e-3", "--warmup", "200", "--loss", "psnr")
    taught = ("--teacher", plan.best("aminet"), "--distill", "0.8", "--views", "4")
    gan = ("--init", plan.best("aminet"))
    return [
        _train(plan, "aminet", 0.45, rate),
        _train(plan, "aminet-edge", 0.15, (*rate, *taught)),
        _train(plan, "aminet-s", 0.15, (*rate, *taught)),
        _train(plan, "amigan", 0.10, gan),
        Step("ablations", _ablations(plan), 0.15),
        *(step for model in ("aminet", "aminet-edge", "aminet-s") for step in _deploy(plan, model)),
        Step("tests", ("pytest", "-q", "-m", "gpu"), needs_gpu=True),
        *(_latency(plan, model) for model in ("aminet", "aminet-edge", "aminet-s")),
    ]


def _train(plan: GpuPlan, model: str, share: float, options: Sequence[str]) -> Step:
    fixed = ("--model", model, "--data", *plan.data, "--val", *plan.val)
    if plan.rehearse:
        how: tuple[str, ...] = REHEARSAL
    else:
        minutes = f"{plan.minutes * share:g}"
        how = ("--minutes", minutes, "--batch", str(BATCH), "--compile", "--device", "cuda")
    out = ("--out", str(plan.out / model), "--resume")
    return Step(f"train {model}", ("aminet.train", *fixed, *out, *options, *how), share)


def _ablations(plan: GpuPlan) -> tuple[str, ...]:
    fixed = ("--data", *plan.data, "--val", *plan.val, "--out", str(plan.out / "ablations"))
    if plan.rehearse:
        return ("benchmarks.ablations", *fixed, "--rehearse", "--steps", "2")
    return ("benchmarks.ablations", *fixed, "--minutes", f"{plan.minutes * 0.15:g}")


def _deploy(plan: GpuPlan, model: str) -> list[Step]:
    """Export, quantize and compile what was trained, in the run's own folder."""
    fp32 = str(plan.out / model / "fp32.onnx")
    export = ("export.onnx", "--checkpoint", plan.best(model), "--out", fp32, "--overwrite")
    folder = plan.out / model
    engines = [str(folder / f"{name}.onnx") for name in ("fp32", "fp16-trt", "int8-trt")]
    int8 = ("quantize.int8", "--artifact", fp32, "--calib", "calib_data/")
    return [
        Step(f"export {model}", export),
        Step(f"fp16 {model}", ("quantize.fp16", "--artifact", fp32)),
        Step(f"int8 {model}", int8),
        Step(f"engines {model}", ("export.tensorrt", "--artifact", *engines), needs_gpu=True),
    ]


def _latency(plan: GpuPlan, model: str) -> Step:
    """A model's engines, and its ONNX files in ONNX Runtime on the GPU."""
    folder = plan.out / model
    engines = [str(path) for path in sorted(folder.glob("trt/*/*.engine"))]
    files = [str(folder / f"{name}.onnx") for name in ("fp32", "fp16-trt")]
    command = ("benchmarks.latency", "--artifact", *files, *engines)
    how = ("--checkpoint", plan.best(model), "--threads", "1", "--baselines")
    backends = ("--backend", "tensorrt", "onnxruntime-cuda")
    out = ("--out", str(folder / "latency-gpu.json"))
    return Step(f"latency {model}", (*command, *how, *backends, *out), needs_gpu=True)


def run(plan: GpuPlan, only: Sequence[str] = ()) -> list[StepResult]:
    """Run the steps that are not done; whatever becomes of one, go on with the next."""
    results = []
    done = _read_done(plan.out)
    names = [step.name for step in steps(plan)]
    if unknown := sorted(set(only) - set(names)):
        raise EdgeError(f"--only: no step is called {', '.join(unknown)}", EXIT_USAGE)
    for name in [name for name in names if not only or name in only]:
        step = next(step for step in steps(plan) if step.name == name)  # with the engines so far
        if step.name in done or (plan.rehearse and step.needs_gpu):
            continue
        print(f"== {step.name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        status = run_step(step)
        seconds = round(time.monotonic() - started, 1)
        results.append(StepResult(step.name, " ".join(step.command), status, seconds))
        if status == 0:
            done.add(step.name)
            write_bytes(plan.out / DONE, json.dumps(sorted(done)).encode())
    return results


def run_step(step: Step) -> int:
    """Run a step's command in a process of its own; its exit status."""
    return subprocess.run([sys.executable, "-m", *step.command], check=False).returncode


def _read_done(out: Path) -> set[str]:
    path = out / DONE
    return set(json.loads(path.read_text())) if path.is_file() else set()


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    plan = GpuPlan(
        data=tuple(arguments.data),
        val=tuple(arguments.val),
        out=Path(arguments.out),
        minutes=arguments.minutes,
        rehearse=arguments.rehearse,
    )
    if arguments.list:
        for step in steps(plan):
            print(f"{step.name}: python -m {' '.join(step.command)}")
        return 0
    results = run(plan, arguments.only)
    if arguments.json:
        print(json.dumps({"steps": [asdict(result) for result in results]}))
    else:
        for result in results:
            how = "done" if result.status == 0 else f"exit {result.status}"
            print(f"{result.name}: {how} in {result.seconds:.0f} s")
    return EXIT_ERROR if any(result.status for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Train, export, compile and measure the paper's networks on a GPU.",
    )
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 training faces"
    )
    parser.add_argument(
        "--val", nargs="+", required=True, metavar="TAR_OR_DIR", help="validation faces"
    )
    parser.add_argument("--out", default="runs/gpu", metavar="DIR", help="default: runs/gpu")
    parser.add_argument(
        "--minutes", type=float, default=45.0, help="of training, all models (default: 45)"
    )
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="STEP", help="these steps (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="show the steps and run none")
    parser.add_argument(
        "--rehearse", action="store_true", help="two training steps each, on the CPU, no GPU steps"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
