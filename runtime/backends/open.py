"""A backend by its name, with an artifact open in it.

The modules of the backends are imported when one is opened: a start needs one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from runtime import cache
from runtime.artifact import Artifact
from runtime.backends.base import ALL_CORES, Threads
from runtime.backends.installed import PACKAGES, installed_version
from runtime.cpu import processor
from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.formats import FORMATS, ONNX, format_for, format_of

if TYPE_CHECKING:
    from runtime.backends.litert import LiteRtSession
    from runtime.backends.ncnn import NcnnSession
    from runtime.backends.onnxruntime import OnnxRuntimeSession
    from runtime.backends.openvino import OpenVinoSession
    from runtime.backends.tensorrt import TensorRtSession

AUTO = "auto"
KEPT = ".ort"  # how ONNX Runtime's optimized graph is kept: its own format
BACKENDS = (AUTO, *(backend for kind in FORMATS for backend in kind.backends))
GPU_BACKENDS = {f"onnxruntime-{provider}": provider for provider in ("cuda", "tensorrt")}

Runner: TypeAlias = (
    "OnnxRuntimeSession | OpenVinoSession | TensorRtSession | LiteRtSession | NcnnSession"
)


def _open_onnxruntime(artifact: Artifact, threads: Threads) -> OnnxRuntimeSession:
    from runtime.backends.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(artifact.model, str(artifact.path), threads=threads)


def _open_openvino(artifact: Artifact, threads: Threads) -> OpenVinoSession:
    from runtime.backends.openvino import OpenVinoSession

    return OpenVinoSession(artifact.model, str(artifact.path), threads=threads)


def _open_tensorrt(artifact: Artifact, _: Threads) -> TensorRtSession:
    from runtime.backends.tensorrt import TensorRtSession

    return TensorRtSession(artifact.model, artifact.manifest, str(artifact.path))


def _open_litert(artifact: Artifact, threads: Threads) -> LiteRtSession:
    from runtime.backends.litert import LiteRtSession

    return LiteRtSession(artifact.model, str(artifact.path), threads.each)


def _open_ncnn(artifact: Artifact, threads: Threads) -> NcnnSession:
    """A network with its weights, which are in a second file."""
    from runtime.backends.ncnn import NcnnSession

    if len(artifact.parts) != 1:
        raise EdgeError(f"{artifact.path}: names {len(artifact.parts)} files of weights, not one")
    (weights,) = artifact.parts.values()
    return NcnnSession(artifact.model, weights, str(artifact.path), threads.each)


OPENERS: dict[str, Callable[[Artifact, Threads], Runner]] = {
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
    "tensorrt": _open_tensorrt,
    "litert": _open_litert,
    "ncnn": _open_ncnn,
}


def open_backend(name: str, artifact: Artifact, threads: Threads = ALL_CORES) -> Runner:
    """Open the model in one of BACKENDS or GPU_BACKENDS; status 5 for one that is not here.

    'auto' is the first of those that open this kind of file. `threads` are for backends on the CPU.
    """
    network = artifact.manifest.network
    if network is not None:
        from runtime.backends.networks import open_network

        backend = ONNX.backends[0] if name == AUTO else name
        return open_network(backend, artifact.model, str(artifact.path), network)
    return _fitting(_open(name, artifact, threads), artifact)


def _open(name: str, artifact: Artifact, threads: Threads) -> Runner:
    kind = format_of(artifact.path)
    if name in GPU_BACKENDS and kind is ONNX:
        from runtime.backends.onnxruntime import OnnxRuntimeGpuSession

        return OnnxRuntimeGpuSession(artifact.model, str(artifact.path), GPU_BACKENDS[name])
    check_backend(name)
    if name != AUTO and name not in kind.backends:
        raise _not_its_kind(name, artifact)
    return OPENERS[kind.backends[0] if name == AUTO else name](artifact, threads)


def check_backend(name: str) -> None:
    """Raise EdgeError with status 2 for a name that is no backend's."""
    if name not in (*BACKENDS, *GPU_BACKENDS):
        raise EdgeError(f"no backend is called {name}, expected {', '.join(BACKENDS)}", EXIT_USAGE)


def with_provider(backend: str, provider: str | None) -> str:
    """The name of a backend whose work --provider does; EdgeError with status 2 if it has none."""
    if provider in (None, "cpu"):
        return backend
    if backend not in (AUTO, ONNX.backends[0]):
        raise EdgeError(
            f"--provider {provider} is ONNX Runtime's; give --backend onnxruntime", EXIT_USAGE
        )
    return f"{ONNX.backends[0]}-{provider}"


def open_optimized(
    backend: str, artifact: Artifact, threads: Threads = ALL_CORES
) -> tuple[Runner, str]:
    """The backend with the model, and the SHA-256 of the bytes that it runs.

    ONNX Runtime is given the graph as it optimized it at an earlier start, if it was kept; not of a
    file for TensorRT, some of which it must not optimize (onnx_bytes.pairs_are_misread).
    """
    optimizable = backend == ONNX.backends[0] and format_of(artifact.path) is ONNX
    optimizable = optimizable and artifact.manifest.network is None
    optimizable = optimizable and artifact.manifest.target != "tensorrt"
    if not optimizable or not cache.is_writable():
        return open_backend(backend, artifact, threads), artifact.manifest.sha256
    key = {
        "optimized": artifact.manifest.sha256,
        "format": KEPT,
        "onnxruntime": installed_version(PACKAGES[backend]) or "",
        "processor": processor(),
    }
    opened = _open_kept(key, artifact, threads)
    if opened is None:
        from runtime.backends.onnxruntime import optimize

        cache.remember_file(key, optimize(artifact.model, str(artifact.path), KEPT))
        opened = _open_kept(key, artifact, threads)
    return opened or (open_backend(backend, artifact, threads), artifact.manifest.sha256)


def _open_kept(
    key: dict[str, str], artifact: Artifact, threads: Threads
) -> tuple[Runner, str] | None:
    """The optimized graph that was kept under a key, and its SHA-256; None if there is none."""
    with cache.recalled_file(key) as kept:
        if kept is None:
            return None
        from runtime.backends.onnxruntime import OptimizedSession

        runner = OptimizedSession(kept.place, str(artifact.path), threads=threads)
        return _fitting(runner, artifact), kept.sha256


def _fitting(runner: Runner, artifact: Artifact) -> Runner:
    """The runner; EdgeError if it reads faces of another size than its manifest says."""
    side, stated = runner.lr_side, artifact.manifest.lr_side
    if side != stated:
        runner.close()
        raise EdgeError(
            f"{artifact.path}: reads faces of {side}x{side}, and its manifest says"
            f" {stated}x{stated}. Create it again with: python -m export.onnx"
        )
    return runner


def _not_its_kind(backend: str, artifact: Artifact) -> EdgeError:
    """The error for a backend that opens other files than this one."""
    path, kind, wanted = artifact.path, format_of(artifact.path), format_for(backend)
    if wanted is not ONNX and kind is ONNX:
        sources = [path.with_name(name) for name in wanted.sources]
        source = next((each for each in sources if each.is_file()), path)
        return EdgeError(
            f"{path}: is not a {wanted.noun}, which --backend {backend} needs. Create one with:"
            f" {wanted.make} --artifact {source}",
            EXIT_MISSING,
        )
    return EdgeError(
        f"{path}: is a {kind.noun}, which --backend {backend} does not run; use --backend"
        f" {kind.backends[0]}",
        EXIT_USAGE,
    )
