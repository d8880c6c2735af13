"""Build TensorRT engines from ONNX files, each with a manifest; `export.tensorrt` is the command.

With `tensorrt` and a GPU, an engine is built for that GPU; else TensorRT-RTX builds ahead of time,
on the CPU, for the given compute capabilities. Precision comes from the ONNX file alone. The gate
(export.gate) rejects graphs that a builder would misread; each build runs in a subprocess
(export.trt.worker).
"""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

from export.gate import check_for_tensorrt, read_graph, types_of
from export.trt.loaders import LOG
from export.trt.options import CAPABILITIES, BuildOptions
from export.trt.subprocess import Progress, alone, ask, work_folder
from export.trt.worker import ENGINE, SOURCE, Built, Found, Request
from runtime.artifact import Artifact, read_artifact, write_artifact
from runtime.atomic import sha256_bytes, sha256_file, write_bytes
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.manifest import Manifest, manifest_path, read_manifest

FP8_CAPABILITY = 8.9  # Ada; Hopper and Blackwell are higher


@dataclass(frozen=True)
class Engine:
    """An engine and how it was built. `seconds` is the build time, 0 where `up_to_date`."""

    engine: str
    artifact: str
    model: str
    precision: str
    bytes: int
    sha256: str
    builder: str
    builder_version: str
    compute_capabilities: tuple[str, ...]
    profile: tuple[int, int, int]
    network_types: dict[str, dict[str, int]]
    engine_types: dict[str, int] | None
    warnings: int
    log: str | None
    seconds: float
    up_to_date: bool


@dataclass(frozen=True)
class Engines:
    """The engines that were built, and why some files have none."""

    engines: tuple[Engine, ...]
    failures: tuple[EdgeError, ...]


def compile_engines(
    artifacts: Sequence[str | Path],
    options: BuildOptions | None = None,
    progress: Progress = lambda step: None,
) -> Engines:
    """Build an engine of each ONNX file, independently of failures of the others.

    Raises EdgeError if none can be built: no builder, or one without these capabilities.
    """
    options = options or BuildOptions()
    found = find_builder(options)
    engines, failures = [], []
    for artifact in artifacts:
        try:
            engines.append(compile_engine(artifact, found, options, progress))
        except EdgeError as error:
            failures.append(error)
    return Engines(tuple(engines), tuple(failures))


def compile_engine(
    artifact: str | Path,
    found: Found,
    options: BuildOptions,
    progress: Progress = lambda step: None,
) -> Engine:
    """Build the engine of an ONNX file with its manifest, unless it is up to date.

    Concurrent calls build it once. Raises EdgeError if the file cannot be read, does not pass the
    gate or cannot be built; an outdated engine is removed first.
    """
    source = read_artifact(Path(artifact))
    capabilities = _capabilities(options, found)
    folder = source.path.parent / "trt" / f"{'+'.join(capabilities)}-{found.version}"
    engine = folder / f"{source.path.stem}.engine"
    flags = {
        "builder": found.builder,
        "compute_capabilities": list(capabilities),
        "profile": list(options.profile),
        "workspace_mib": options.workspace_mib,
        "tf32": False,
        "strongly_typed": True,
    }
    with alone(engine, progress):
        if _is_up_to_date(engine, source, found, flags):
            return _describe(engine, source, seconds=0.0, up_to_date=True)
        for old in (manifest_path(engine), engine, _log_path(engine)):
            old.unlink(missing_ok=True)
        started = time.monotonic()
        _build(engine, source, found, flags, options.timeout_s, progress)
        return _describe(engine, source, time.monotonic() - started, up_to_date=False)


def find_builder(options: BuildOptions) -> Found:
    """Find a builder that starts here; EdgeError with status 5 if there is none."""
    with tempfile.TemporaryDirectory() as work:
        question = {"find": options.builder}
        step = "looking for a builder"
        answer = ask(Path(work), question, step, options.timeout_s, lambda step: None)
    found = Found(**{**answer, "offered": tuple(answer["offered"])})
    offered = (found.capability,) if found.capability else found.offered
    for capability in options.capabilities:
        if capability not in offered:
            raise EdgeError(
                f"{found.builder} {found.version} builds for {', '.join(map(str, offered))} here,"
                f" not for {capability}; on a device of {capability} run:"
                " python -m export.tensorrt --builder tensorrt",
                EXIT_MISSING,
            )
    return found


def _capabilities(options: BuildOptions, found: Found) -> tuple[str, ...]:
    if found.capability:
        return (found.capability,)
    return tuple(sorted(set(options.capabilities or CAPABILITIES), key=float))


def _is_up_to_date(engine: Path, source: Artifact, found: Found, flags: dict[str, Any]) -> bool:
    """Whether the engine is intact and was built from this source with these flags."""
    try:
        manifest = read_manifest(engine)
        whole = sha256_file(engine) == manifest.sha256
    except EdgeError:
        return False
    return (
        whole
        and manifest.parent_sha256 == source.manifest.sha256
        and manifest.probes_sha256 == source.manifest.probes_sha256
        and manifest.tools == {found.builder: found.version}
        and all(manifest.flags.get(name) == value for name, value in flags.items())
    )


def _build(
    engine: Path,
    source: Artifact,
    found: Found,
    flags: dict[str, Any],
    timeout_s: float,
    progress: Progress,
) -> None:
    """Check, build, and write engine and manifest; the manifest last, since it is read first."""
    graph = read_graph(source.model, str(source.path))
    check_for_tensorrt(graph, str(source.path))
    _check_capabilities(graph, source.path, flags["compute_capabilities"])
    request = Request(
        builder=found.builder,
        capabilities=tuple(flags["compute_capabilities"]),
        profile=tuple(flags["profile"]),
        workspace_mib=flags["workspace_mib"],
        types=types_of(graph),
    )
    step = f"{source.path}: building for {', '.join(request.capabilities)}"
    with work_folder(engine) as work:
        write_bytes(work / SOURCE, source.model)
        try:
            built = Built(**ask(work, {"build": asdict(request)}, step, timeout_s, progress))
        except EdgeError as error:
            raise EdgeError(
                f"{source.path}: {error}{_keep_log(work, engine)}", error.status
            ) from error
        _keep_log(work, engine)
        content = (work / ENGINE).read_bytes()
        manifest = _manifest(source, found, {**flags, **asdict(built)}, sha256_bytes(content))
        write_artifact(engine, content, manifest)


def _check_capabilities(graph: ModelProto, path: Path, capabilities: Sequence[str]) -> None:
    """EdgeError with status 5 for FP8 on a GPU that has none; TensorRT-RTX's own is unreadable."""
    too_low = [c for c in capabilities if float(c) < FP8_CAPABILITY]
    if too_low and "FP8" in types_of(graph).get("QUANTIZE", {}):
        raise EdgeError(
            f"{path}: FP8 needs compute capability {FP8_CAPABILITY} or higher, not {too_low[0]};"
            f" --compute-capability {FP8_CAPABILITY}, or take an int8-trt file",
            EXIT_MISSING,
        )


def _keep_log(work: Path, engine: Path) -> str:
    """Move the builder's log, if any, beside the engine; return where it is, for a message."""
    if not (work / LOG).is_file():
        return ""
    os.replace(work / LOG, _log_path(engine))
    return f"; see {_log_path(engine)}"


def _manifest(
    source: Artifact, found: Found, flags: dict[str, Any], engine_sha256: str
) -> Manifest:
    parent = source.manifest
    seen = "as the engine says" if flags["engine_types"] else "as the parsed network says"
    return Manifest(
        model=parent.model,
        precision=parent.precision,
        target="tensorrt",
        sha256=engine_sha256,
        checkpoint_sha256=parent.checkpoint_sha256,
        probes_sha256=parent.probes_sha256,
        executes_as=f"{parent.precision}, {seen}; not run yet",
        lr_side=parent.lr_side,
        parent_sha256=parent.sha256,
        calibration_sha256=parent.calibration_sha256,
        psnr_y=parent.psnr_y,
        max_drop_db=parent.max_drop_db,
        tools={found.builder: found.version},
        flags=flags,
    )


def _describe(engine: Path, source: Artifact, seconds: float, up_to_date: bool) -> Engine:
    manifest = read_manifest(engine)
    flags = manifest.flags
    ((builder, version),) = manifest.tools.items()
    return Engine(
        engine=str(engine),
        artifact=str(source.path),
        model=manifest.model,
        precision=manifest.precision,
        bytes=engine.stat().st_size,
        sha256=manifest.sha256,
        builder=builder,
        builder_version=version,
        compute_capabilities=tuple(flags["compute_capabilities"]),
        profile=tuple(flags["profile"]),
        network_types=flags["network_types"],
        engine_types=flags["engine_types"],
        warnings=flags["warnings"],
        log=str(_log_path(engine)) if flags["warnings"] else None,
        seconds=round(seconds, 2),
        up_to_date=up_to_date,
    )


def _log_path(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.log")
