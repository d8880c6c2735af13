"""One artifact on one emulated ARM processor: its probes, and the precision that was seen there."""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from benchmarks.harness.emulated_arm import EmulatedArm, qemu_version
from benchmarks.harness.targets import TargetRow
from quantize.precision import fused_int8_layers
from quantize.source import read_source
from runtime import drift
from runtime.artifact import read_artifact
from runtime.atomic import sha256_file
from runtime.backends.open import open_backend
from runtime.cpu import processor
from runtime.errors import EXIT_DRIFT
from runtime.manifest import Manifest, Measurement, probes_path, read_manifest, write_manifest

FEW_FACES, FEW_STRESS = 3, 2  # probes of files that compute in FP32: 20 s each, emulated
RUNTIMES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
DRIFTS = "; drifts, refused"
# Runs on the emulated processor: the check, then what the runtime made of the file.
CHECK = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from runtime.artifact import read_artifact
from runtime.backends.onnxruntime import optimize
from runtime.backends.open import open_backend
from runtime.check import main

path, optimized = sys.argv[1:]
status = main([path, "--json"])
if status == 0:
    artifact = read_artifact(Path(path))
    if artifact.path.suffix == ".onnx":
        Path(optimized).write_bytes(optimize(artifact.model, path))
    else:
        with open_backend("auto", artifact) as runner:
            print(json.dumps(asdict(runner.execution())))
sys.exit(status)
"""


def check_file(
    arm: EmulatedArm, artifact: Path, code: Path, work: Path, *, few: bool = False
) -> TargetRow:
    """Run a file's probes, or a `few` of them, on a processor.

    What the runtime refuses makes a row that says why.
    """
    optimized = work / "optimized.onnx"
    optimized.unlink(missing_ok=True)
    checked = take_few_probes(artifact, work / "few") if few else artifact
    done = arm.run(["-c", CHECK, str(checked), str(optimized)], [code])
    if done.returncode not in (0, EXIT_DRIFT) or not done.stdout:
        reason = last_line(done.stderr).removeprefix(f"error: {checked}: ").partition("; take")[0]
        return _row(arm, artifact, None, reason)
    report, *execution = map(json.loads, done.stdout.splitlines())
    manifest = read_manifest(artifact)
    if optimized.is_file():
        precision = _precision_of_graph(onnx.load(optimized), manifest, artifact)
    elif execution and manifest.precision == "int8":
        precision = _share(execution[0]["int8_mac_share"])
    else:
        precision = manifest.executes_as
    row = _row(arm, artifact, report, precision + ("" if report["passed"] else DRIFTS))
    return replace(row, ran_on=f"{row.ran_on}; {FEW_FACES + FEW_STRESS} probes") if few else row


def check_command(cpu: str, file: str) -> str:
    """What repeats a row."""
    return f"python -m benchmarks.arm --cpu {cpu} --file {file}"


def take_few_probes(artifact: Path, folder: Path) -> Path:
    """A copy of an artifact under `folder`, with some of its probes: faces and stress probes.

    Its limits are those of these probes, as measured on this machine.
    """
    probes = drift.read_probes(probes_path(artifact))
    few = [*range(FEW_FACES), *range(len(probes.names))[-FEW_STRESS:]]
    names = tuple(probes.names[i] for i in few)
    chosen = drift.Probes(probes.lr[few], probes.sr[few], names, FEW_FACES)
    copied = folder / artifact.relative_to(probes_path(artifact).parent)
    copied.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(artifact, copied)
    drift.write_probes(probes_path(copied), chosen)
    with open_backend("auto", read_artifact(artifact)) as runner:
        fidelity = drift.measure(runner.run, chosen)
        measured = Measurement(
            runner.name,
            runner.version,
            processor(),
            fidelity.fidelity_db,
            fidelity.worst_fidelity_db,
            fidelity.extremes_fidelity_db,
        )
    manifest = replace(
        read_manifest(artifact),
        probes_sha256=sha256_file(probes_path(copied)),
        measured_on=(measured,),
    )
    write_manifest(copied, manifest)
    return copied


def _row(
    arm: EmulatedArm, artifact: Path, report: dict[str, Any] | None, precision_or_reason: str
) -> TargetRow:
    """A row of what was reported, or of the reason for which nothing was."""
    folder = probes_path(artifact).parent
    name = artifact.relative_to(folder).as_posix()
    measured = report or {}
    runtime = RUNTIMES[measured.get("backend", "onnxruntime")]
    runtime_version = measured.get("backend_version") or version("onnxruntime")
    return TargetRow(
        target=f"{runtime} {runtime_version} on ARM{'' if report else ', refused'}",
        file=f"{folder.name}/{name}",
        bytes=artifact.stat().st_size,
        precision=precision_or_reason if report else read_manifest(artifact).precision,
        fidelity_db=measured.get("fidelity_db"),
        worst_fidelity_db=measured.get("worst_fidelity_db"),
        extremes_fidelity_db=measured.get("extremes_fidelity_db"),
        ran_on=f"QEMU {qemu_version()}, {arm.cpu}" if report else None,
        command=check_command(arm.cpu, name),
        not_run=None if report else precision_or_reason,
    )


def _precision_of_graph(optimized: onnx.ModelProto, manifest: Manifest, artifact: Path) -> str:
    """What a graph computes in that ONNX Runtime made on the emulated processor."""
    if manifest.precision == "int8":
        source = read_source(artifact.with_name("fp32.onnx"))
        names = fused_int8_layers(optimized, source.layers)
        return _share(
            sum(layer.macs for layer in source.layers if layer.name in names) / source.macs
        )
    types = {tensor.data_type for tensor in optimized.graph.initializer}
    return "fp16" if onnx.TensorProto.FLOAT16 in types else manifest.executes_as


def _share(int8: float) -> str:
    return f"int8, {int8:.1%} of the multiply-adds"


def last_line(text: str) -> str:
    """The last line of what a program complained."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it ended without a message"
