"""One target's INT8 file: built, judged in its backend, held to the budget, written."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx
from onnx import ModelProto

from quantize import sensitivity
from quantize.budget import Budget, Candidate, Evaluator, hold
from quantize.calibration import CalibrationSet, calibrate
from quantize.fp16_passes import to_half
from quantize.gate import check_for_tensorrt
from quantize.layers import Layer
from quantize.precision import int8_layers_onnxruntime, int8_layers_openvino
from quantize.qdq import quantize_layers
from quantize.record import Int8Artifact, make_manifest, measurement, record
from quantize.source import Subject, open_content, write_artifact
from quantize.targets import Target
from runtime import drift
from runtime.artifact import read_artifact
from runtime.backends.open import Runner
from runtime.backends.openvino import OpenVinoSession
from runtime.dataset import load_faces
from runtime.errors import EXIT_PRECISION, EdgeError
from runtime.manifest import manifest_path


@dataclass(frozen=True)
class Options:
    """`max_drop_db` is the mean's; the worst face may lose five times that; None: the target's own.

    `data`: real faces of 128x128.
    """

    max_drop_db: float | None = None
    data: tuple[str, ...] = ()
    minutes: float = sensitivity.MINUTES
    require_precision: bool = False


class Builder:
    """Makes the files of one artifact, calibrated and judged with the same faces."""

    def __init__(
        self,
        subject: Subject,
        faces: CalibrationSet,
        options: Options,
        progress: Callable[[str], None],
    ) -> None:
        self._subject, self._faces, self._options = subject, faces, options
        self._progress = progress
        progress("calibrating")
        self._calibrated = calibrate(subject.model, subject.layers, faces.faces)
        real = load_faces(options.data) if options.data else None
        with open_content(subject, "onnxruntime", subject.artifact.model) as fp32:
            self._judge = Evaluator(fp32.run, faces.held_out, real)

    def make(self, target: Target) -> list[Int8Artifact]:
        """The target's files; or what the file that it shares does in its backend."""
        self._progress(f"{target.name}: quantizing")
        if target.shares and (shared := self._try_shared(target, target.shares)):
            return [shared]
        held = self._hold(target, self._calibrated.layers)
        made = [self._write(target, target.file, held)]
        if target.half_file:
            half = self._hold(target, held.layers, to_half)
            made.append(self._write(target, target.half_file, half))
        return made

    def _hold(
        self,
        target: Target,
        layers: Sequence[Layer],
        convert: Callable[[ModelProto], ModelProto] = lambda model: model,
    ) -> Candidate:
        """As many of these layers as the budget allows, with the rest converted."""

        def attempt(layers: Sequence[Layer]) -> Candidate:
            return self._attempt(target, convert(self._build(target, layers)), layers)

        errors = partial(self._layer_errors, target)
        return hold(self._budget(target), layers, self._subject.macs, attempt, errors)

    def _budget(self, target: Target) -> Budget:
        asked_db = self._options.max_drop_db
        max_drop_db = target.max_drop_db if asked_db is None else asked_db
        return Budget(max_drop_db, self._subject.manifest.psnr_y, target.correlation)

    def _build(self, target: Target, layers: Sequence[Layer]) -> ModelProto:
        return quantize_layers(self._calibrated.model, layers, self._calibrated.ranges, target)

    def _layer_errors(self, target: Target) -> dict[str, float]:
        return sensitivity.layer_errors(
            self._subject,
            self._calibrated,
            target,
            self._faces.held_out,
            minutes=self._options.minutes,
            progress=lambda step: self._progress(f"{target.name}: {step}"),
        )

    def _attempt(self, target: Target, model: ModelProto, layers: Sequence[Layer]) -> Candidate:
        content = model.SerializeToString(deterministic=True)
        with open_content(self._subject, target.backend, content) as runner:
            return self._measure(target, runner, content, layers)

    def _measure(
        self, target: Target, runner: Runner, content: bytes, layers: Sequence[Layer]
    ) -> Candidate:
        return Candidate(
            content=content,
            layers=tuple(layers),
            seen=self._judge.judge(runner.run),
            probed=drift.measure(runner.run, self._subject.probes),
            computed=frozenset(_int8_layers(target, runner, content, layers)),
            backend_version=runner.version,
        )

    def _try_shared(self, target: Target, file: str) -> Int8Artifact | None:
        """Measure another target's file here; None if it is not ours or over the budget."""
        path = self._subject.path.with_name(file)
        try:
            artifact = read_artifact(path)
        except EdgeError:
            return None
        if artifact.manifest.parent_sha256 != self._subject.manifest.sha256:
            return None
        reverted = artifact.manifest.flags.get("reverted", ())
        layers = [layer for layer in self._subject.layers if layer.name not in reverted]
        with open_content(self._subject, target.backend, artifact.model) as runner:
            attempt = self._measure(target, runner, artifact.model, layers)
        if not self._budget(target).allows(attempt.seen, attempt.probed):
            return None
        others = [m for m in artifact.manifest.measured_on if m.backend != target.backend]
        measured_on = (*others, measurement(target, attempt))
        write_artifact(path, artifact.model, replace(artifact.manifest, measured_on=measured_on))
        _remove(self._subject.path.with_name(target.file))
        return record(self._subject, target, path, attempt)

    def _write(self, target: Target, file: str, attempt: Candidate) -> Int8Artifact:
        path = self._subject.path.with_name(file)
        made = record(self._subject, target, path, attempt)
        if target.name == "tensorrt":
            check_for_tensorrt(onnx.load_model_from_string(attempt.content), str(path))
        missing = [layer.name for layer in attempt.layers if layer.name not in attempt.computed]
        if missing and self._options.require_precision:
            raise EdgeError(
                f"{path}: {target.backend} does not compute {len(missing)} of"
                f" {len(attempt.layers)} quantized layers in INT8, such as {missing[0]}; drop"
                " --require-precision to allow it",
                EXIT_PRECISION,
            )
        max_drop_db = self._budget(target).max_drop_db
        manifest = make_manifest(self._subject, target, attempt, made, self._faces, max_drop_db)
        write_artifact(path, attempt.content, manifest)
        return made


def _int8_layers(
    target: Target, runner: Runner, content: bytes, layers: Sequence[Layer]
) -> set[str]:
    if target.emulated:
        return {layer.name for layer in layers}
    if isinstance(runner, OpenVinoSession):
        return int8_layers_openvino(runner, layers)
    return int8_layers_onnxruntime(content, layers)


def _remove(path: Path) -> None:
    """Remove an artifact that a better one replaces, the manifest first."""
    for file in (manifest_path(path), path):
        with suppress(FileNotFoundError):
            file.unlink()
