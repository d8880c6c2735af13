"""The manifest of a site: its files, and what the page tries with them, in which order."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from export import npm
from runtime.artifact import Artifact
from runtime.atomic import sha256_bytes
from runtime.image import SR_SIDE, face_sides
from runtime.manifest import Measurement

SCHEMA_VERSION = 1
PACKAGE = npm.Package(
    "onnxruntime-web",
    "1.30.0",
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)
RUNTIME = "onnxruntime-web"
# Its build with WebGPU is twice as large, so WebAssembly alone has a build of its own.
WASM = {
    "api": "ort.wasm.min.mjs",
    "glue": "ort-wasm-simd-threaded.mjs",
    "wasm": "ort-wasm-simd-threaded.wasm",
}
WEBGPU = {
    "api": "ort.webgpu.min.mjs",
    "glue": "ort-wasm-simd-threaded.asyncify.mjs",
    "wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
HALF = "fp16-trt.onnx"  # computes in FP16, in TensorRT and in WebGPU
PARTS = {"wasm-threads": WASM, "wasm": WASM, "webgpu": WEBGPU}


@dataclass(frozen=True)
class Route:
    """A file in a backend of the browser; `precision` is what it is computed in.

    `needs` are features that the GPU must have. `spare`: only for a page that is asked for FP32.
    """

    artifact: str
    precision: str
    label: str
    provider: str
    needs: tuple[str, ...] = ()
    spare: bool = False
    runtime: str = RUNTIME


def describe_site(
    artifacts: Sequence[Artifact],
    content: Mapping[str, bytes],
    measured: Mapping[str, Measurement],
) -> dict[str, Any]:
    """What site.json says of these artifacts, of the site's other files and of their fidelity."""
    first = artifacts[0].manifest
    side = first.lr_side
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "target": "web",
        "model": first.model,
        "checkpoint_sha256": first.checkpoint_sha256,
        "probes_sha256": first.probes_sha256,
        "lr_side": side,
        "sr_side": SR_SIDE,
        "face_px": face_sides(side),
        "routes": [asdict(route) for route in _routes(artifacts)],
        "runtimes": {
            RUNTIME: {
                provider: {part: runtime_place(name) for part, name in parts.items()}
                for provider, parts in PARTS.items()
            }
        },
        "files": {
            name: {"sha256": sha256_bytes(data), "bytes": len(data)}
            for name, data in content.items()
        },
        "tools": {PACKAGE.name: PACKAGE.version, "python": platform.python_version()},
        "integrity": {PACKAGE.file_name: PACKAGE.integrity},
        "measured_on": [
            {"artifact": f"model/{name}", **asdict(measurement)}
            for name, measurement in measured.items()
        ],
    }
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {**manifest, "digest": sha256_bytes(canonical.encode())}


def computed_in(artifact: Artifact) -> str:
    """The precision in the browser.

    The FP16 file for GPUs computes in FP16 there; its manifest may say FP32, of a processor.
    """
    return "fp16" if artifact.path.name == HALF else artifact.manifest.computed_in


def _routes(artifacts: Sequence[Artifact]) -> list[Route]:
    """What the page tries, in this order.

    INT8 is for WebAssembly: WebGPU has no INT8 convolutions. What computes in FP32 runs anywhere.
    """
    by_precision = {computed_in(each): each for each in artifacts}
    routes = []
    for precision, providers in (
        ("int8", ("wasm-threads", "wasm")),
        ("fp16", ("webgpu",)),
        ("fp32", ("webgpu", "wasm-threads", "wasm")),
    ):
        if artifact := by_precision.get(precision):
            for provider in providers:
                spare = precision == "fp32" and provider != "webgpu" and "int8" in by_precision
                needs = ("shader-f16",) if precision == "fp16" else ()
                routes.append(_route(artifact, provider, needs, spare))
    return routes


def _route(artifact: Artifact, provider: str, needs: tuple[str, ...], spare: bool) -> Route:
    precision, stored = computed_in(artifact), artifact.manifest.precision
    label = (
        precision.upper()
        if stored == precision
        else f"{precision.upper()}, {stored.upper()} weights"
    )
    return Route(
        artifact=f"model/{artifact.path.name}",
        precision=precision,
        label=label,
        provider=provider,
        needs=needs,
        spare=spare,
    )


def runtime_place(name: str) -> str:
    """Where a file of the runtime lies in the site."""
    return f"{RUNTIME}-{PACKAGE.version}/{name}"
