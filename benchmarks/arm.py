"""Artifacts on emulated ARM processors: `python -m benchmarks.arm --out docs/measured/arm.json`.

Each artifact is checked on its probes by the runtime's own ARM kernels, a face is upscaled, and the
pack for CPUs is unpacked and checked. Files that compute in FP32 are checked on a few probes, since
each takes 20 s, and fp32.onnx, whose kernels are the same on all of them, on one processor. QEMU
emulates the processors, so no speed is measured. `--resume` goes on where a run was stopped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.emulated_arm import CPUS
from benchmarks.harness.machine import machine
from benchmarks.harness.targets import TargetRow, write_rows
from runtime.errors import EXIT_DRIFT, needs, run_command
from runtime.places import FOLDER

OUT = Path("docs", "measured", "arm.json")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("quantize,bench"):
        from benchmarks.harness import arm_findings as arm
        from benchmarks.harness.arm_check import DRIFTS
    content = arm.read_content(arguments.out)
    wheel = arguments.wheel or arm.find_wheel()
    digest = arm.digest_of(Path(arguments.artifact), wheel)
    known = content if arguments.resume and content.get("digest") == digest else {}
    if arguments.resume and not known:
        _say("nothing to go on from: --out holds no run of these files and this code")
    if not known and not arguments.file and tuple(arguments.cpu) == tuple(CPUS):
        content = arm.read_content(None)
    content.update(machine=asdict(machine()), code=wheel.name if wheel else "the checkout")
    content["digest"] = digest
    findings = arm.measure(
        arguments.artifact, arguments.file, arguments.cpu, wheel, _say, dict(known)
    )
    drifted = False
    for finding in findings:  # each is kept at once: all of them take half an hour
        arm.add(content, finding)
        drifted |= isinstance(finding, TargetRow) and finding.precision.endswith(DRIFTS)
        if arguments.out:
            facts = {name: value for name, value in content.items() if name != "rows"}
            write_rows(arguments.out, [TargetRow(**row) for row in content["rows"]], facts)
    print(json.dumps(content) if arguments.json else arm.tables(content))
    return EXIT_DRIFT if drifted else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arm",
        description="Check artifacts on emulated ARM processors; QEMU and Debian are needed.",
    )
    parser.add_argument("--artifact", default=FOLDER, metavar="D", help=f"default: {FOLDER}")
    parser.add_argument(
        "--file", nargs="+", default=(), metavar="F", help="default: those that CPUs run"
    )
    parser.add_argument("--cpu", nargs="+", choices=CPUS, default=tuple(CPUS), help="default: all")
    parser.add_argument(
        "--wheel", type=Path, metavar="F", help="whose code is run (default: dist/, else the tree)"
    )
    parser.add_argument("--out", metavar="F.json", help=f"keep it here too, such as {OUT}")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what --out has of the same files and code"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
