"""FP16 files of an FP32 artifact: converted, measured on its probes, written within a budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from onnx import ModelProto

from quantize.fp16_passes import round_to_half, store_weights_in_half, to_half
from quantize.fp16_sums import open_summed_in_half
from quantize.options import FP16_FILES, Fp16Artifact
from quantize.precision import computes_in_half
from quantize.source import SourceModel
from runtime import drift
from runtime.artifact import write_artifact
from runtime.backends.onnxruntime import fp16_fault
from runtime.drift import Probes
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.manifest import Manifest, Measurement

LEAST_FIDELITY_DB = 60.0  # a hundredth of what INT8 may lose
HERE = "onnxruntime"
FP32_SUMS = "onnxruntime, activations rounded to FP16, sums in FP32"
FP16_SUMS = "numpy, activations and sums rounded to FP16"
SUMMED_FACES, SUMMED_EXTREMES = 2, 1  # the probes of FP16_SUMS, which takes seconds for each
TOOLS = ("onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class _Made:
    """A file that is not written yet: its bytes, and how it did. The first measurement counts."""

    target: str
    content: bytes
    executes_as: str
    measured_on: tuple[Measurement, ...]


def make(source: SourceModel, targets: Sequence[str]) -> tuple[Fp16Artifact, ...]:
    """Write a file for each target; EdgeError with status 3, and no file, if one loses too much."""
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
                f" expected {least_db:.0f}; nothing was written; stay with FP32 or take INT8",
                EXIT_DRIFT,
            )


def _write(source: SourceModel, made: _Made) -> Fp16Artifact:
    path = source.path.with_name(FP16_FILES[made.target])
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
