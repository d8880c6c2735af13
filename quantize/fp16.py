"""FP16 within a drift budget: `python -m quantize.fp16 [--target cpu,tensorrt]`.

fp16.onnx is for CPUs: it stores its weights in FP16 and computes in FP32, the same on every
processor. fp16-trt.onnx computes in FP16, for TensorRT and other GPU runtimes. What its arithmetic
loses is evaluated anywhere on the probes, by rounding: with sums in FP32, as GPUs usually sum, and
with sums in FP16. Input and output stay float32.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from runtime.errors import EXIT_DRIFT, EXIT_PRECISION, EXIT_USAGE, EdgeError, needs, run_command

with needs("quantize", __name__):
    from onnx import ModelProto

from quantize.fp16_passes import round_to_half, store_weights_in_half, to_half
from quantize.fp16_sums import open_summed_in_half
from quantize.options import ARTIFACT
from quantize.precision import computes_in_half
from quantize.source import SourceModel, read_source
from runtime import drift
from runtime.artifact import write_artifact
from runtime.backends.onnxruntime import fp16_fault
from runtime.drift import Probes
from runtime.manifest import Manifest, Measurement

LEAST_FIDELITY_DB = 60.0  # a hundredth of what INT8 may lose
HERE = "onnxruntime"
FP32_SUMS = "onnxruntime, activations rounded to FP16, sums in FP32"
FP16_SUMS = "numpy, activations and sums rounded to FP16"
SUMMED_FACES, SUMMED_EXTREMES = 2, 1  # the probes of FP16_SUMS, which takes seconds for each
TOOLS = ("onnx", "onnxruntime", "numpy")
FILES = {"cpu": "fp16.onnx", "tensorrt": "fp16-trt.onnx"}


@dataclass(frozen=True)
class Fp16Artifact:
    """One file. The fidelities to FP32 are those of `measured_on`, the backend or its proxy.

    `fp16_sums_fidelity_db` is for hardware that sums in FP16; None where nothing is summed so.
    """

    artifact: str
    target: str
    bytes: int
    fidelity_db: float
    worst_fidelity_db: float
    extremes_fidelity_db: float
    measured_on: str
    fp16_sums_fidelity_db: float | None
    executes_as: str


@dataclass(frozen=True)
class _Made:
    """A file that is not written yet: its bytes, and how it did. The first measurement counts."""

    target: str
    content: bytes
    executes_as: str
    measured_on: tuple[Measurement, ...]


def convert(
    artifact: str | Path = ARTIFACT,
    targets: Sequence[str] = tuple(FILES),
    *,
    require_precision: bool = False,
) -> tuple[Fp16Artifact, ...]:
    """Convert an FP32 artifact; EdgeError with status 3, and no file, where one loses too much.

    `require_precision`: EdgeError with status 6 for a target that does not compute in FP16.
    """
    if require_precision and "cpu" in targets:
        raise EdgeError(
            f"{artifact}: {FILES['cpu']} computes in FP32 on every CPU; --target tensorrt makes the"
            " file that computes in FP16, or drop --require-precision",
            EXIT_PRECISION,
        )
    source = read_source(artifact)
    made = [MAKE[target](source) for target in targets]
    for each in made:
        _check_budget(source, each)
    return tuple(_write(source, each) for each in made)


def _for_cpu(source: SourceModel) -> _Made:
    content = _content(store_weights_in_half(source.model))
    measured = _measure(source, content, HERE)
    return _Made("cpu", content, "fp32, weights stored in FP16", (measured,))


def _for_tensorrt(source: SourceModel) -> _Made:
    content = _content(to_half(source.model))
    rounded = _content(round_to_half(source.model))
    measured_on = [
        _measure(source, rounded, FP32_SUMS, emulated=True),
        _measure_fp16_sums(source),
    ]
    executes_as = "fp16, as the file says"
    if fp16_fault(content, version(HERE)) is None:  # else it is not opened here
        measured_on.append(_measure(source, content, HERE, emulated=True))
        if not computes_in_half(content):
            executes_as = "fp32 in ONNX Runtime, weights and activations rounded to FP16"
    return _Made("tensorrt", content, executes_as, tuple(measured_on))


MAKE: dict[str, Callable[[SourceModel], _Made]] = {"cpu": _for_cpu, "tensorrt": _for_tensorrt}


def _content(model: ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def _measure(
    source: SourceModel, content: bytes, backend: str, *, emulated: bool = False
) -> Measurement:
    with source.open(content, HERE) as runner:
        fidelity = drift.measure(runner.run, source.probes)
        return Measurement.of(fidelity, backend, runner.version, emulated=emulated)


def _measure_fp16_sums(source: SourceModel) -> Measurement:
    """On some probes only, faces and extremes."""
    probes = source.probes
    some = [*range(SUMMED_FACES), *range(len(probes.names))[-SUMMED_EXTREMES:]]
    names = tuple(probes.names[i] for i in some)
    few = Probes(probes.lr[some], probes.sr[some], names, SUMMED_FACES)
    fidelity = drift.measure(open_summed_in_half(source.model), few)
    return Measurement.of(fidelity, FP16_SUMS, version("numpy"), emulated=True)


def _check_budget(source: SourceModel, made: _Made) -> None:
    """EdgeError under LEAST_FIDELITY_DB; FP16 sums, which are rare, may use the drift budget up."""
    budget = drift.limit(source.manifest, backend="").fidelity_db
    for measured in made.measured_on:
        least_db = budget if measured.backend == FP16_SUMS else LEAST_FIDELITY_DB
        if min(measured.fidelity_db, measured.extremes_fidelity_db) < least_db:
            raise EdgeError(
                f"{source.path}: FP16 keeps {measured.fidelity_db:.1f} dB on faces and"
                f" {measured.extremes_fidelity_db:.1f} on stress probes ({measured.backend}),"
                f" expected"
                f" {least_db:.0f}; nothing was written; stay with FP32 or take INT8",
                EXIT_DRIFT,
            )


def _write(source: SourceModel, made: _Made) -> Fp16Artifact:
    path = source.path.with_name(FILES[made.target])
    write_artifact(path, made.content, _manifest(source, made))
    first, *others = made.measured_on
    sums_db = [m.fidelity_db for m in others if m.backend == FP16_SUMS]
    return Fp16Artifact(
        artifact=str(path),
        target=made.target,
        bytes=len(made.content),
        fidelity_db=first.fidelity_db,
        worst_fidelity_db=first.worst_fidelity_db,
        extremes_fidelity_db=first.extremes_fidelity_db,
        measured_on=first.backend,
        fp16_sums_fidelity_db=sums_db[0] if sums_db else None,
        executes_as=made.executes_as,
    )


def _manifest(source: SourceModel, made: _Made) -> Manifest:
    return source.manifest_of(
        made.content,
        precision="fp16",
        target=made.target,
        executes_as=made.executes_as,
        max_drop_db=source.manifest.max_drop_db,
        tools={tool: version(tool) for tool in TOOLS},
        measured_on=made.measured_on,
    )


def describe(made: Fp16Artifact) -> str:
    """One line on an artifact."""
    sums_db = made.fp16_sums_fidelity_db
    sums = "" if sums_db is None else f"; {sums_db:.1f} dB where sums are FP16 too"
    return (
        f"{made.artifact}: for {made.target}, {made.bytes / 2**20:.1f} MiB, {made.executes_as};"
        f" {made.fidelity_db:.1f} dB to FP32 on faces, {made.extremes_fidelity_db:.1f} on stress"
        " probes"
        f" ({made.measured_on}){sums}"
    )


def parse_targets(text: str) -> tuple[str, ...]:
    """The targets in "cpu,tensorrt"; EdgeError for another name."""
    names = {name.strip() for name in text.split(",")}
    if unknown := sorted(names - FILES.keys()):
        raise EdgeError(
            f"no target is called {unknown[0]!r}, expected some of {','.join(FILES)}", EXIT_USAGE
        )
    return tuple(name for name in FILES if name in names)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    targets = parse_targets(arguments.target)
    made = convert(arguments.artifact, targets, require_precision=arguments.require_precision)
    if arguments.json:
        artifacts = [asdict(each) for each in made]
        print(json.dumps({**artifacts[0], "artifacts": artifacts}))
    else:
        for each in made:
            print(describe(each), file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.fp16", description="Convert an FP32 artifact to FP16."
    )
    parser.add_argument("--artifact", default=ARTIFACT, metavar="F", help=f"default: {ARTIFACT}")
    parser.add_argument(
        "--target",
        default=",".join(FILES),
        metavar="T",
        help=f"some of {','.join(FILES)} (default: all)",
    )
    parser.add_argument(
        "--require-precision",
        action="store_true",
        help="exit with 6 for a target that does not compute in FP16",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
