"""A backend by its name, with an artifact open in it."""

from typing import TypeAlias

from runtime import cache
from runtime.artifact import MAX_ARTIFACT_BYTES, Artifact
from runtime.atomic import sha256_bytes
from runtime.backends.installed import installed_backends
from runtime.backends.onnxruntime import OnnxRuntimeGpuSession, OnnxRuntimeSession, optimize
from runtime.backends.openvino import OpenVinoSession
from runtime.backends.tensorrt import TensorRtSession
from runtime.cpu import processor
from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.manifest import ENGINE

AUTO = "auto"
BACKENDS = (AUTO, OnnxRuntimeSession.name, OpenVinoSession.name, TensorRtSession.name)
PROVIDERS = ("cpu", "cuda", "tensorrt")
GPU_BACKENDS = {f"{OnnxRuntimeSession.name}-{provider}": provider for provider in PROVIDERS[1:]}

Runner: TypeAlias = OnnxRuntimeSession | OpenVinoSession | TensorRtSession


def open_backend(name: str, artifact: Artifact) -> Runner:
    """Open the model in one of BACKENDS or GPU_BACKENDS; status 5 for one that is not here.

    'auto' runs an engine in TensorRT, anything else in ONNX Runtime.
    """
    if artifact.path.suffix == ENGINE or name == TensorRtSession.name:
        return _open_engine(name, artifact)
    if name in GPU_BACKENDS:
        return OnnxRuntimeGpuSession(artifact.model, str(artifact.path), GPU_BACKENDS[name])
    if name in (AUTO, OnnxRuntimeSession.name):
        return OnnxRuntimeSession(artifact.model, str(artifact.path))
    if name == OpenVinoSession.name:
        return OpenVinoSession(artifact.model, str(artifact.path))
    raise EdgeError(f"no backend is called {name}, expected {', '.join(BACKENDS)}", EXIT_USAGE)


def with_provider(backend: str, provider: str | None) -> str:
    """The name of a backend whose work --provider does; EdgeError with status 2 if it has none."""
    if provider in (None, "cpu"):
        return backend
    if backend not in (AUTO, OnnxRuntimeSession.name):
        raise EdgeError(
            f"--provider {provider} is ONNX Runtime's; give --backend onnxruntime", EXIT_USAGE
        )
    return f"{OnnxRuntimeSession.name}-{provider}"


def open_optimized(backend: str, artifact: Artifact) -> tuple[Runner, str]:
    """The backend with the model, and the SHA-256 of the bytes that it runs.

    ONNX Runtime is given the graph as it optimized it at an earlier start, if it was kept.
    """
    optimizable = backend == OnnxRuntimeSession.name and artifact.path.suffix != ENGINE
    if not optimizable or not cache.is_writable():
        return open_backend(backend, artifact), artifact.manifest.sha256
    key = {
        "optimized": artifact.manifest.sha256,
        "onnxruntime": installed_backends().get(backend, ""),
        "processor": processor(),
    }
    kept = cache.recall_file(key, MAX_ARTIFACT_BYTES)
    if kept is None:
        kept = optimize(artifact.model, str(artifact.path))
        if not cache.remember_file(key, kept):
            return open_backend(backend, artifact), artifact.manifest.sha256
    return OnnxRuntimeSession(kept, str(artifact.path), optimized=True), sha256_bytes(kept)


def _open_engine(name: str, artifact: Artifact) -> Runner:
    """An engine in TensorRT; EdgeError if either is something else."""
    path = artifact.path
    if path.suffix != ENGINE:
        raise EdgeError(
            f"{path}: is no engine, which --backend tensorrt needs; build one on this device:"
            f" python -m export.tensorrt --artifact {path}",
            EXIT_MISSING,
        )
    if name not in (AUTO, TensorRtSession.name):
        raise EdgeError(
            f"{path}: is an engine, which --backend {name} does not run; use --backend tensorrt",
            EXIT_USAGE,
        )
    return TensorRtSession(artifact.model, artifact.manifest, str(path))
