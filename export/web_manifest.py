"""The manifest of a site: its files, and what the page tries with them, in which order."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from export import npm
from runtime.artifact import Artifact
from runtime.atomic import sha256_bytes
from runtime.image import MAX_LR_SIDE, SR_SIDE, face_sides
from runtime.manifest import Measurement

SCHEMA_VERSION = 1
HALF = "fp16-trt.onnx"  # computes in FP16, in TensorRT and in WebGPU
LITERT_FILE = "litert/int8.tflite"


@dataclass(frozen=True)
class Runtime:
    """A runtime of the page: its package, and for each provider the members that it loads."""

    package: npm.Package
    parts: Mapping[str, Mapping[str, str]]

    @property
    def members(self) -> list[str]:
        return sorted({name for parts in self.parts.values() for name in parts.values()})

    def place(self, member: str) -> str:
        """Where a file of the package lies in the site."""
        return f"{self.package.folder}/{member.rpartition('/')[2]}"


# Its build with WebGPU is twice as large, so WebAssembly alone has a build of its own.
WASM = {
    "api": "dist/ort.wasm.min.mjs",
    "glue": "dist/ort-wasm-simd-threaded.mjs",
    "wasm": "dist/ort-wasm-simd-threaded.wasm",
}
WEBGPU = {
    "api": "dist/ort.webgpu.min.mjs",
    "glue": "dist/ort-wasm-simd-threaded.asyncify.mjs",
    "wasm": "dist/ort-wasm-simd-threaded.asyncify.wasm",
}
ONNXRUNTIME = Runtime(
    npm.Package(
        "onnxruntime-web",
        "1.30.0",
        "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    ),
    {"wasm-threads": WASM, "wasm": WASM, "webgpu": WEBGPU},
)
LITERT = Runtime(
    npm.Package(
        "@litertjs/core",
        "2.5.3",
        "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
    ),
    {
        provider: {
            "api": "dist/index.js",
            "glue": f"wasm/litert_wasm{build}_internal.js",
            "wasm": f"wasm/litert_wasm{build}_internal.wasm",
        }
        for provider, build in (("wasm-threads", "_threaded"), ("wasm", ""))
    },
)


@dataclass(frozen=True)
class Route:
    """A file in a backend of the browser; `precision` is what it is computed in.

    `needs` are features that the GPU must have. `spare`: only for a page that is asked for FP32.
    `int8_mac_share`: of the multiply-adds, those that the file computes in INT8, if it is known.
    """

    artifact: str
    precision: str
    label: str
    provider: str
    needs: tuple[str, ...] = ()
    spare: bool = False
    runtime: str = ONNXRUNTIME.package.name
    int8_mac_share: float | None = None


def runtimes(artifacts: Sequence[Artifact]) -> list[Runtime]:
    """ONNX Runtime Web, which the detector needs, and LiteRT.js for a file of its format."""
    lite = any(artifact.path.suffix == ".tflite" for artifact in artifacts)
    return [ONNXRUNTIME, LITERT] if lite else [ONNXRUNTIME]


def describe_site(
    artifacts: Sequence[Artifact],
    content: Mapping[str, bytes],
    measured: Mapping[str, Measurement],
) -> dict[str, Any]:
    """What site.json says of these artifacts, of the site's other files and of their fidelity."""
    first = artifacts[0].manifest
    side, needed = first.lr_side, runtimes(artifacts)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "target": "web",
        "model": first.model,
        "checkpoint_sha256": first.checkpoint_sha256,
        "probes_sha256": first.probes_sha256,
        "lr_side": side,
        "sr_side": SR_SIDE,
        "face_px": face_sides(side),
        "face_image_px": MAX_LR_SIDE,  # larger images are photos, whose faces are found first
        "routes": [asdict(route) for route in _routes(artifacts)],
        "runtimes": {
            runtime.package.name: {
                provider: {part: runtime.place(name) for part, name in parts.items()}
                for provider, parts in runtime.parts.items()
            }
            for runtime in needed
        },
        "files": {
            name: {"sha256": sha256_bytes(data), "bytes": len(data)}
            for name, data in content.items()
        },
        "tools": {
            **{runtime.package.name: runtime.package.version for runtime in needed},
            "python": platform.python_version(),
        },
        "integrity": {each.package.file_name: each.package.integrity for each in needed},
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
    by_precision = {computed_in(each): each for each in artifacts if each.path.suffix == ".onnx"}
    lite = [each for each in artifacts if each.path.suffix == ".tflite"]
    routes = [_route(each, provider, LITERT) for each in lite for provider in LITERT.parts]
    for precision, providers in (
        ("int8", ("wasm-threads", "wasm")),
        ("fp16", ("webgpu",)),
        ("fp32", ("webgpu", "wasm-threads", "wasm")),
    ):
        if artifact := by_precision.get(precision):
            for provider in providers:
                spare = precision == "fp32" and provider != "webgpu" and "int8" in by_precision
                needs = ("shader-f16",) if precision == "fp16" else ()
                routes.append(_route(artifact, provider, ONNXRUNTIME, needs, spare))
    return routes


def _route(
    artifact: Artifact,
    provider: str,
    runtime: Runtime,
    needs: tuple[str, ...] = (),
    spare: bool = False,
) -> Route:
    precision, stored = computed_in(artifact), artifact.manifest.precision
    label = precision.upper()
    if stored != precision:
        label += f", {stored.upper()} weights"
    if runtime is LITERT:
        label += " by LiteRT"
    return Route(
        artifact=f"model/{artifact.path.name}",
        precision=precision,
        label=label,
        provider=provider,
        needs=needs,
        spare=spare,
        runtime=runtime.package.name,
        int8_mac_share=artifact.manifest.flags.get("int8_mac_share"),
    )
