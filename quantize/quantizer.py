"""One source model's INT8 files: quantized by an engine, evaluated, within the budget, written."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from export.gate import check_for_tensorrt
from quantize import sensitivity
from quantize.budget import Budget, Int8Candidate, meet_budget
from quantize.calibration import CalibrationSet
from quantize.drift_record import RecordedDrift
from quantize.engines.engine import QuantizationEngine
from quantize.engines.native import NativeEngine
from quantize.engines.nncf import NncfEngine
from quantize.fp16_passes import to_half
from quantize.layers import Layer
from quantize.options import ENGINES, Int8Options
from quantize.precision import int8_layers
from quantize.record import Int8Artifact, make_manifest, measurement_of, record
from quantize.source import SourceModel
from quantize.targets import Target
from runtime import drift
from runtime.artifact import read_artifact, write_artifact
from runtime.backends.open import Runner
from runtime.cpu import processor
from runtime.dataset import load_faces
from runtime.errors import EXIT_DRIFT, EXIT_PRECISION, EdgeError
from runtime.evaluation import Evaluator
from runtime.image import shrink, to_tensor
from runtime.manifest import manifest_path
from runtime.progress import Progress
from runtime.selection import take_turns

TURNS = 10  # of the two engines' files, interleaved
AS_FAST = 1.02  # times the other's milliseconds: noise

_Failure = tuple[QuantizationEngine, EdgeError]


class Quantizer:
    """Makes the files of one source model, calibrated and evaluated with the same faces."""

    def __init__(
        self,
        source: SourceModel,
        calibration: CalibrationSet,
        options: Int8Options,
        progress: Progress,
        recorded: Sequence[RecordedDrift] = (),
    ) -> None:
        self._source, self._calibration, self._options = source, calibration, options
        self._progress = progress
        self._recorded = {(record.target, record.file): record for record in recorded}
        self.measured: list[RecordedDrift] = []  # of the files that were made on real faces
        self._errors: dict[str, dict[str, float]] = {}  # of each target, of each layer alone
        names = ENGINES if options.engine == "auto" else (options.engine,)
        self._engines: list[QuantizationEngine] = [self._open_engine(name) for name in names]
        if options.data and source.manifest.network is not None:
            raise EdgeError("--data: the drift on real faces is AMINet's, not another network's")
        with source.open(source.content) as fp32:
            self._held_out = Evaluator(fp32.run, calibration.held_out)
            self._real = self._evaluator_on_real_faces(fp32) if options.data else None

    def make(self, target: Target) -> list[Int8Artifact]:
        """The target's files; or the file of another target that it shares, measured here."""
        if target.shares and (shared := self._share(target, target.shares)):
            return [shared]
        engine, best = self._best(target)
        made = [self._write(target, target.file, best)]
        if target.half_file:
            half = self.meet_budget(engine, target, best.layers, to_half, target.half_file)
            made.append(self._write(target, target.half_file, half))
        return made

    def _evaluator_on_real_faces(self, fp32: Runner) -> Evaluator:
        hr, side = load_faces(self._options.data), self._source.manifest.lr_side
        return Evaluator(fp32.run, np.stack([shrink(face, side) for face in hr]), hr)

    def _open_engine(self, name: str) -> QuantizationEngine:
        if name == NativeEngine.name:
            return self._native
        return NncfEngine(self._source, self._calibration.faces)

    @cached_property
    def _native(self) -> NativeEngine:
        if self._source.trained is None:
            self._progress("calibrating")
        return NativeEngine(self._source, self._calibration.faces)

    def _best(self, target: Target) -> tuple[QuantizationEngine, Int8Candidate]:
        """The engine whose file is kept, and that file; EdgeError if none meets the budget."""
        made, failures = self.compete(target)
        if not made:
            raise failures[0][1]
        if len(self._engines) == 1:
            return made[0]
        candidates = [candidate for _, candidate in made]
        kept, why = choose(candidates, self.times_ms(target, candidates))
        why = "; ".join([why, *(f"the other engine: {error}" for _, error in failures)])
        return made[kept][0], replace(made[kept][1], choice=why)

    def compete(
        self, target: Target
    ) -> tuple[list[tuple[QuantizationEngine, Int8Candidate]], list[_Failure]]:
        """What each engine makes within the budget, and why some make nothing."""
        made: list[tuple[QuantizationEngine, Int8Candidate]] = []
        failures: list[_Failure] = []
        for engine in self._engines:
            try:
                met = self.meet_budget(engine, target, self._source.layers, file=target.file)
                made.append((engine, met))
            except EdgeError as error:
                if error.status != EXIT_DRIFT:
                    raise
                failures.append((engine, error))
        return made, failures

    def times_ms(self, target: Target, candidates: Sequence[Int8Candidate]) -> list[float] | None:
        """The time of each file for one face, interleaved; None where only a proxy runs it."""
        if target.emulated or len(candidates) < 2:
            return None
        self._progress(f"{target.name}: timing {len(candidates)} files")
        with ExitStack() as stack:
            runners = [self._source.open(each.content, target.backend) for each in candidates]
            for runner in runners:
                stack.callback(runner.close)
            lr = to_tensor(self._source.probes.lr[:1])
            turns_ms = take_turns([runner.run for runner in runners], lr, TURNS)
        return [float(np.median(turns)) for turns in turns_ms]

    def meet_budget(
        self,
        engine: QuantizationEngine,
        target: Target,
        layers: Sequence[Layer],
        convert: Callable[[ModelProto], ModelProto] = lambda model: model,
        file: str = "",
    ) -> Int8Candidate:
        """As many of these layers in INT8 as the budget allows, with the rest converted.

        Those that are recorded of the target's `file` are tried first.
        """

        def attempt(layers: Sequence[Layer]) -> Int8Candidate:
            return self.attempt(engine, target, layers, convert)

        def errors() -> Mapping[str, float]:
            return self._layer_errors(target)

        budget, macs = self.budget(target), self._source.macs
        recorded = self._recorded_of(target, file) if engine.name == NativeEngine.name else None
        if recorded:
            candidate = recorded.applied_to(attempt(recorded.layers_of(layers)))
            if candidate and budget.allows(candidate):
                return candidate
        return meet_budget(budget, layers, macs, attempt, errors, give_back=engine.quick)

    def _recorded_of(self, target: Target, file: str) -> RecordedDrift | None:
        """The drift that real faces showed once within this budget, where none are given now."""
        recorded = None if self._real else self._recorded.get((target.name, file))
        in_budget = recorded and recorded.max_drop_db == self.budget(target).max_drop_db
        return recorded if in_budget else None

    def attempt(
        self,
        engine: QuantizationEngine,
        target: Target,
        layers: Sequence[Layer],
        convert: Callable[[ModelProto], ModelProto] = lambda model: model,
    ) -> Int8Candidate:
        """These layers in INT8, the rest converted, and how that does; whatever the budget."""
        self._progress(
            f"{target.name}: {engine.name} with {len(layers)} layers in {target.grid.upper()}"
        )
        content = self._source.serialize(convert(engine.quantize(layers, target)))
        candidate = self.evaluate(target, content, layers)
        return replace(candidate, engine=engine.name, engine_version=engine.version)

    def budget(self, target: Target) -> Budget:
        asked_db = self._options.max_drop_db
        max_drop_db = target.max_drop_db if asked_db is None else asked_db
        fp32 = self._source.manifest
        correlation = target.correlation if fp32.network is None else None
        return Budget(max_drop_db, drift.budget_psnr_y(fp32), correlation)

    def _layer_errors(self, target: Target) -> dict[str, float]:
        """Of each layer alone in INT8 by the native engine, which quantizes one in a second."""
        if target.name not in self._errors:
            self._errors[target.name] = sensitivity.layer_errors(
                self._source,
                self._native,
                target,
                self._calibration.held_out,
                minutes=self._options.minutes,
                progress=lambda step: self._progress(f"{target.name}: {step}"),
            )
        return self._errors[target.name]

    def evaluate(self, target: Target, content: bytes, layers: Sequence[Layer]) -> Int8Candidate:
        """How a file with these layers in INT8 does in the target's backend."""
        with self._source.open(content, target.backend) as runner:
            return self.evaluate_open(target, runner, content, layers)

    def evaluate_open(
        self, target: Target, runner: Runner, content: bytes, layers: Sequence[Layer]
    ) -> Int8Candidate:
        """The same of a file that is open already, in whatever format."""
        claimed = {layer.name for layer in layers}
        return Int8Candidate(
            content=content,
            layers=tuple(layers),
            held_out=self._held_out.evaluate(runner.run),
            real=self._real.evaluate(runner.run) if self._real else None,
            probes=drift.measure(runner.run, self._source.probes),
            computed=frozenset(
                claimed if target.emulated else int8_layers(runner, content, layers)
            ),
            backend_version=runner.version,
        )

    def _share(self, target: Target, file: str) -> Int8Artifact | None:
        """Measure another target's file here; None if it is not ours or misses the budget."""
        path = self._source.path.with_name(file)
        try:
            artifact = read_artifact(path)
        except EdgeError:
            return None
        flags = artifact.manifest.flags
        engine = flags.get("engine", NativeEngine.name)
        of_source = artifact.manifest.parent_sha256 == self._source.manifest.sha256
        if not of_source or engine not in [engine.name for engine in self._engines]:
            return None
        kept_fp32 = flags.get("reverted", ())
        layers = [layer for layer in self._source.layers if layer.name not in kept_fp32]
        candidate = replace(
            self.evaluate(target, artifact.model, layers),
            engine=engine,
            engine_version=flags.get("engine_version", ""),
        )
        if recorded := self._recorded_of(target, file):
            candidate = recorded.applied_to(candidate) or candidate
        if not self.budget(target).allows(candidate):
            return None
        self._note_measured(target, file, candidate)
        others = [m for m in artifact.manifest.measured_on if m.backend != target.backend]
        measured_on = (*others, measurement_of(candidate, target))
        write_artifact(path, artifact.model, replace(artifact.manifest, measured_on=measured_on))
        _remove(self._source.path.with_name(target.file))
        return record(self._source, target, path, candidate, self._errors.get("cpu", {}))

    def _write(self, target: Target, file: str, candidate: Int8Candidate) -> Int8Artifact:
        path = self._source.path.with_name(file)
        errors = self._errors.get(target.name, {})
        made = record(self._source, target, path, candidate, errors)
        if target.name == "tensorrt":
            check_for_tensorrt(onnx.load_model_from_string(candidate.content), str(path))
        missing = [layer.name for layer in candidate.layers if layer.name not in candidate.computed]
        if missing and self._options.require_precision:
            raise EdgeError(
                f"{path}: {target.backend} does not compute {len(missing)} of"
                f" {len(candidate.layers)} quantized layers in INT8, such as {missing[0]}; drop"
                " --require-precision to allow it",
                EXIT_PRECISION,
            )
        max_drop_db = self.budget(target).max_drop_db
        manifest = make_manifest(
            self._source, target, candidate, made, self._calibration, max_drop_db
        )
        write_artifact(path, candidate.content, manifest)
        self._note_measured(target, file, candidate)
        return made

    def _note_measured(self, target: Target, file: str, candidate: Int8Candidate) -> None:
        fp32 = self._source.manifest
        if candidate.engine != NativeEngine.name or fp32.checkpoint_sha256 is None:
            return
        place = {
            "model": fp32.model,
            "checkpoint_sha256": fp32.checkpoint_sha256,
            "target": target.name,
            "file": file,
            "measured_on": f"{target.backend} {candidate.backend_version}, {processor()}",
        }
        max_drop_db = self.budget(target).max_drop_db
        measured = RecordedDrift.of(candidate, self._source.layers, max_drop_db, **place)
        if measured:
            self.measured.append(measured)


def choose(
    candidates: Sequence[Int8Candidate], times_ms: Sequence[float] | None
) -> tuple[int, str]:
    """The place of the file to keep, and why: higher fidelity at equal or better speed.

    All meet the budget. Where no speed was measured the share of INT8 stands in for it.
    """
    places = range(len(candidates))
    most_faithful = max(places, key=lambda place: candidates[place].fidelity_db)
    macs = [sum(layer.macs for layer in candidate.layers) for candidate in candidates]
    cost = list(times_ms) if times_ms else [1 / max(each, 1) for each in macs]
    kept = most_faithful
    if cost[most_faithful] > AS_FAST * min(cost):
        kept = cost.index(min(cost))
    told = []
    for place in places:
        candidate = candidates[place]
        speed = f"{times_ms[place]:.2f} ms" if times_ms else f"{len(candidate.layers)} layers INT8"
        told.append(f"{candidate.engine} {candidate.fidelity_db:.1f} dB, {speed}")
    return kept, f"{candidates[kept].engine} kept ({'; '.join(told)})"


def _remove(path: Path) -> None:
    """Remove an artifact that a better one replaces, the manifest first."""
    for file in (manifest_path(path), path):
        with suppress(FileNotFoundError):
            file.unlink()
