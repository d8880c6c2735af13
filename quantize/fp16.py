"""FP16 within a drift budget: `python -m quantize.fp16` writes fp16.onnx beside fp32.onnx.

Input and output stay float32. Few processors compute in FP16; what those lose is judged anywhere by
rounding every value to half, on the probes: faces, and extremes where FP16 might overflow.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from runtime.errors import EXIT_DRIFT, EXIT_PRECISION, EdgeError, needs, run_command

with needs("quantize", __name__):
    from onnx import ModelProto

from quantize.fp16_passes import round_to_half, to_half
from quantize.precision import computes_in_half
from quantize.source import ARTIFACT, Subject, open_content, read_subject, write_artifact
from runtime import drift
from runtime.atomic import sha256_bytes
from runtime.cpu import processor
from runtime.manifest import Manifest, Measurement

LEAST_FIDELITY_DB = 60.0  # a hundredth of what INT8 may lose
ROUNDED = "onnxruntime, each value rounded to half"
TOOLS = ("onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Fp16Result:
    """The file. `fidelity_db` and the others are to FP32 as FP16 arithmetic would have it.

    `here_fidelity_db` is what ONNX Runtime makes of it on this processor, which `executes_as` says.
    """

    artifact: str
    bytes: int
    fidelity_db: float
    worst_fidelity_db: float
    extremes_fidelity_db: float
    here_fidelity_db: float
    executes_as: str


def convert(artifact: str | Path = ARTIFACT, *, require_precision: bool = False) -> Fp16Result:
    """Convert an FP32 artifact; EdgeError with status 3, and no file, under LEAST_FIDELITY_DB.

    `require_precision`: EdgeError with status 6 where ONNX Runtime would not compute in FP16.
    """
    subject = read_subject(artifact)
    content = to_half(subject.model).SerializeToString(deterministic=True)
    emulated = _measure(subject, round_to_half(subject.model), ROUNDED, emulated=True)
    least_db = min(emulated.fidelity_db, emulated.extremes_fidelity_db)
    if least_db < LEAST_FIDELITY_DB:
        raise EdgeError(
            f"{artifact}: FP16 keeps {emulated.fidelity_db:.1f} dB on faces and"
            f" {emulated.extremes_fidelity_db:.1f} on extremes, expected {LEAST_FIDELITY_DB:.0f};"
            " nothing was written; stay with FP32 or take INT8",
            EXIT_DRIFT,
        )
    native = computes_in_half(content)
    executes_as = "fp16" if native else "fp32, weights and features rounded to FP16"
    if require_precision and not native:
        raise EdgeError(
            f"{artifact}: ONNX Runtime has no FP16 kernels for this processor, FP16 runs in FP32"
            " here; drop --require-precision to allow it",
            EXIT_PRECISION,
        )
    here = _measure(subject, to_half(subject.model), "onnxruntime")
    path = subject.path.with_name("fp16.onnx")
    write_artifact(path, content, _manifest(subject, content, executes_as, (here, emulated)))
    return Fp16Result(
        artifact=str(path),
        bytes=len(content),
        fidelity_db=emulated.fidelity_db,
        worst_fidelity_db=emulated.worst_fidelity_db,
        extremes_fidelity_db=emulated.extremes_fidelity_db,
        here_fidelity_db=here.fidelity_db,
        executes_as=executes_as,
    )


def _measure(
    subject: Subject, model: ModelProto, backend: str, *, emulated: bool = False
) -> Measurement:
    with open_content(subject, "onnxruntime", model.SerializeToString()) as runner:
        fidelity = drift.measure(runner.run, subject.probes)
        return Measurement(
            backend=backend,
            backend_version=runner.version,
            processor=processor(),
            fidelity_db=fidelity.fidelity_db,
            worst_fidelity_db=fidelity.worst_fidelity_db,
            extremes_fidelity_db=fidelity.extremes_fidelity_db,
            emulated=emulated,
        )


def _manifest(
    subject: Subject, content: bytes, executes_as: str, measured_on: tuple[Measurement, ...]
) -> Manifest:
    fp32 = subject.manifest
    return Manifest(
        model=fp32.model,
        precision="fp16",
        target="any",
        sha256=sha256_bytes(content),
        checkpoint_sha256=fp32.checkpoint_sha256,
        probes_sha256=fp32.probes_sha256,
        executes_as=executes_as,
        parent_sha256=fp32.sha256,
        psnr_y=fp32.psnr_y,
        max_drop_db=fp32.max_drop_db,
        tools={tool: version(tool) for tool in TOOLS},
        measured_on=measured_on,
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    result = convert(arguments.artifact, require_precision=arguments.require_precision)
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        print(
            f"{result.artifact}: {result.bytes / 2**20:.1f} MiB, runs in {result.executes_as};"
            f" {result.here_fidelity_db:.1f} dB to FP32 here; in FP16 arithmetic"
            f" {result.fidelity_db:.1f} dB on faces, {result.extremes_fidelity_db:.1f} on extremes",
            file=sys.stderr,
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.fp16", description="Convert an FP32 artifact to FP16."
    )
    parser.add_argument("--artifact", default=ARTIFACT, metavar="F", help=f"default: {ARTIFACT}")
    parser.add_argument(
        "--require-precision",
        action="store_true",
        help="exit with 6 if this processor would compute it in FP32",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
