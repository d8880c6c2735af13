"""What a larger network costs: `python -m benchmarks.studies.sizes --out docs/measured/sizes.json`.

The named models with random weights, which take as long as trained ones, in FP32: one face, all
cores, in torch, ONNX Runtime and OpenVINO, in turns.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runtime.errors import needs, run_command

with needs("train,export,quantize,bench", __name__):
    from aminet.checkpoint import load_model, save_checkpoint
    from aminet.config import MODELS
    from aminet.info import measure_cost
    from benchmarks.harness.baselines import WORK, make_peers
    from benchmarks.harness.entries import CALIBRATION
    from benchmarks.harness.machine import Machine, cores, machine
    from benchmarks.harness.race import Worker, race
    from quantize.calibration import read_calibration

from runtime.atomic import sha256_file, write_bytes
from runtime.cpu import processor

NAMES = ("torch eager", "ONNX Runtime FP32", "OpenVINO FP32")
SIZES = ("aminet-edge", "aminet-s", "aminet")  # amigan's network is aminet's
SECONDS = 3.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    model: str
    name: str
    params: int
    macs: int
    threads: int
    p50_ms: float
    gmacs_per_s: float
    peak_mib: float
    others_share: float


@dataclass(frozen=True)
class Sizes:
    rows: tuple[Row, ...]
    machine: Machine


def sizes(
    models: Sequence[str] = SIZES,
    names: Sequence[str] = NAMES,
    seconds: float = SECONDS,
    say: Say = lambda line: None,
) -> Sizes:
    """Time each model in each library; about `seconds` a row."""
    threads = cores()
    faces = read_calibration([CALIBRATION]).faces
    contenders = []
    for model in models:
        say(f"making {model} with random weights")
        network, loaded = load_model(model, random_seed=0)
        path = WORK / f"{model}-random.safetensors"
        save_checkpoint(path, network, loaded.config, name=model)
        checkpoint = replace(loaded, path=path, sha256=sha256_file(path))
        contenders += make_peers(checkpoint, faces, processor(), tuple(names), say)
    with ExitStack() as stack:
        say("opening them")
        workers = [stack.enter_context(Worker(contender, threads)) for contender in contenders]
        say("timing them")
        timings = race(workers, 1, seconds)
    rows = []
    for contender, timing in zip(contenders, timings, strict=True):
        cost = measure_cost(MODELS[contender.model])
        rows.append(
            Row(
                model=contender.model,
                name=contender.name,
                params=cost.params,
                macs=cost.macs,
                threads=threads,
                p50_ms=timing.p50_ms,
                gmacs_per_s=cost.macs / timing.p50_ms / 1e6,
                peak_mib=timing.peak_mib,
                others_share=timing.others_share,
            )
        )
    return Sizes(tuple(rows), machine())


def table(rows: Sequence[Row]) -> str:
    lines = [f"{'model':12} {'G MACs':>7}  {'library':18} {'p50 ms':>8} {'G MACs/s':>9} {'MiB':>6}"]
    for row in rows:
        lines.append(
            f"{row.model:12} {row.macs / 1e9:7.2f}  {row.name:18} {row.p50_ms:8.2f}"
            f" {row.gmacs_per_s:9.1f} {row.peak_mib:6.0f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.sizes", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--model", nargs="+", default=SIZES, choices=MODELS)
    parser.add_argument("--peers", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="X", help="a row")
    parser.add_argument("--out", type=Path, metavar="F.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)

    def run() -> int:
        result = sizes(
            arguments.model,
            arguments.peers,
            arguments.seconds,
            say=lambda line: print(line, file=sys.stderr),
        )
        content = json.dumps(asdict(result))
        if arguments.out:
            write_bytes(arguments.out, f"{json.dumps(asdict(result), indent=1)}\n".encode())
        print(content if arguments.json else table(result.rows))
        return 0

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
