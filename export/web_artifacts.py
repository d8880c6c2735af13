"""The artifacts that a page offers: of which model, which files, and whether they are sound."""

from collections.abc import Sequence
from pathlib import Path

from export.web_manifest import HALF, LITERT_FILE, computed_in
from runtime.artifact import Artifact, read_artifact
from runtime.backends.open import open_backend
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.manifest import Measurement
from runtime.media.models import NATURAL, PHOTOS
from runtime.places import FOLDER, find_model
from runtime.progress import Progress
from runtime.verification import describe_failure, measure

TARGETS = ("any", "cpu")  # whose files a browser can run
BEST = PHOTOS[NATURAL][0]


def choose_source(named: str | Path | None) -> tuple[Path, str]:
    """What the page is made of, and why: what was named, or what runtime.infer takes for photos."""
    if named is not None:
        return Path(named), "named by --artifact"
    found = find_model(PHOTOS[NATURAL], packed=False)
    if found is None or found.name == BEST:
        why = "what runtime.infer takes for photos; --artifact takes another model"
        return found or FOLDER.with_name(BEST), why
    return found, f"{FOLDER.with_name(BEST)}, which is made for photos, is not here: {_maker(BEST)}"


def read_artifacts(source: Path, litert: bool) -> list[Artifact]:
    """The artifacts to offer, the one for WebAssembly first."""
    if not source.exists():
        raise EdgeError(
            f"{source}: not found. Create it with: {_maker(source.name)}, then quantize.int8 and"
            f" quantize.fp16 --artifact {source / 'fp32.onnx'}; or give --artifact"
        )
    paths = _choose(source) if source.is_dir() else [source]
    if source.suffix != ".onnx" and not source.is_dir():
        raise EdgeError(f"{source}: is no ONNX file, expected int8.onnx, fp32.onnx or a folder")
    if litert:
        paths.append(_lite_file(source))
    artifacts = [read_artifact(path) for path in paths]
    for path, artifact in zip(paths, artifacts, strict=True):
        beside_others = path.name in (HALF, Path(LITERT_FILE).name) and len(paths) > 1
        if artifact.manifest.target not in TARGETS and not beside_others:
            raise EdgeError(
                f"{path}: was made for {artifact.manifest.target}, expected a file for"
                f" {' or '.join(TARGETS)}; take int8.onnx or fp32.onnx"
            )
    if len({artifact.manifest.checkpoint_sha256 for artifact in artifacts}) > 1:
        raise EdgeError(
            f"{source}: holds files of different weights; export and quantize again:"
            " python -m export.onnx"
        )
    return artifacts


def measure_artifacts(artifacts: Sequence[Artifact], step: Progress) -> dict[str, Measurement]:
    """The fidelity of each by its name, in ONNX Runtime here; EdgeError, status 3, if one drifts.

    No processor's kernels stand in for a GPU's, and ONNX Runtime opens no other format: what runs
    so is left out.
    """
    measured = {}
    for artifact in artifacts:
        if computed_in(artifact) == "fp16" or artifact.path.suffix != ".onnx":
            continue
        step(f"running the probes: {artifact.path.name}")
        with open_backend("onnxruntime", artifact) as runner:
            verdict = measure(runner, artifact)
            if not verdict.passed:
                raise EdgeError(describe_failure(artifact, runner.name, verdict), EXIT_DRIFT)
            measured[artifact.path.name] = Measurement.of(
                verdict.fidelity, runner.name, runner.version, emulated=True
            )
    return measured


def _choose(folder: Path) -> list[Path]:
    """int8.onnx, what computes in FP32 (the smaller file), and for GPUs what computes in FP16."""
    light, fp32 = folder / "fp16.onnx", folder / "fp32.onnx"
    commands = {
        folder / "int8.onnx": f"python -m quantize.int8 --artifact {fp32}",
        light if light.is_file() else fp32: _maker(folder.name),
    }
    for path, command in commands.items():
        if not path.is_file():
            raise EdgeError(f"{path}: not found. Create it with: {command}")
    half = folder / HALF
    return [*commands, half] if half.is_file() else list(commands)


def _lite_file(source: Path) -> Path:
    folder = source if source.is_dir() else source.parent
    path = folder / LITERT_FILE
    if not path.is_file():
        raise EdgeError(
            f"{path}: not found. Create it with: python -m export.litert --artifact {folder}"
        )
    return path


def _maker(name: str) -> str:
    """The command that exports the model of a folder of this name."""
    if any(name in names for names in PHOTOS.values()):
        return f"python -m export.onnx --model {name}"
    return "python -m export.onnx"
