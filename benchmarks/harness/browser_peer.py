"""The browser's peer: upscaler of npm with its 8x models, in the page of a real Chromium.

It is what a search for super-resolution in JavaScript brings: ESRGAN, for any image, by
TensorFlow.js. Its packages are hash-checked as ours are; it is run as its readme says, in the
faster of the backends that work without a GPU.
"""

import json
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aminet.config import LR_SIDE
from benchmarks.harness.chromium import Page
from export import npm
from export.web_server import make_server
from runtime.atomic import write_bytes
from runtime.image import SR_SIDE, Pixels, psnr_y, shrink, upscale_bicubic

PAGE = Path(__file__).with_name("browser_peer.html")
BACKEND = "wasm"  # of TensorFlow.js; "cpu", in JavaScript, takes many times as long
UPSCALER = npm.Package(
    "upscaler",
    "1.0.0",
    "sha512-oQcxcShLj+HDHCtQBbdqQnFYwwgKeaU2wPNj4QL+Q/Gr05Vm9kXFU7TNl7ZpTR9ic0u4tOl70ZcQcUFODMUV/g==",
)
TENSORFLOW = npm.Package(  # the version that upscaler asks for
    "@tensorflow/tfjs",
    "4.11.0",
    "sha512-s6Vbz3IvMz2zNbH8/VptpRXzkwVjmuzT48esYLXJxMKtTcob4m5Srdxo7B+eJSDrWYkutXruiivaWmihFmu5rA==",
)
TENSORFLOW_WASM = npm.Package(
    "@tensorflow/tfjs-backend-wasm",
    "4.11.0",
    "sha512-ubv+5cXux8al/ccZvmDpuw5PNm8FAj57GHzC0nDkX6lHJ0iXNklzUPK5SoTYnU7eYwXXzv8synjnqiqnWvfDEA==",
)
MODELS = {  # the global that the model's script makes -> its package
    "ESRGANSlim8x": npm.Package(
        "@upscalerjs/esrgan-slim",
        "1.0.0",
        "sha512-DXtwn5SE71+pZKluN/hGeLaZv6ZylyFQYSvMqU08kKCEA5Y9Q1cIIk4EvPTPZw8VqGi2C6F02c8OjhtId4BK2w==",
    ),
    "ESRGANMedium8x": npm.Package(
        "@upscalerjs/esrgan-medium",
        "1.0.0",
        "sha512-Z8JnR87sgetPABKevasXST3FdnXhaoTu9zpXnu3KLaHYpYStVt0FD1VZS9c6jhSGMBC0H929gN9RbWl+MeisKA==",
    ),
}
WASM_BUILDS = tuple(f"tfjs-backend-wasm{build}.wasm" for build in ("", "-simd", "-threaded-simd"))
UNUSED = WASM_BUILDS[:2]  # where the browser has SIMD and threads
UPSCALE = "upscale(%s, %d)"


@dataclass(frozen=True)
class PeerRow:
    """Mean PSNR-Y in dB to the original faces; milliseconds a face, the median of the turns.

    `loaded_bytes` are all files that the page loads for it; None for what is no page.
    """

    upscaler: str
    psnr_y: float
    faces: int
    ms: float | None = None
    loaded_bytes: int | None = None


class BrowserPeer:
    """The peer's models on the same faces, hr uint8 (N, 128, 128, 3), in turns.

    `lr` are the faces that it is given, and `ours` what our page made of them.
    """

    def __init__(self, page: Page, hr: Pixels, folder: Path) -> None:
        self._page, self._hr = page, hr
        self.ours: Pixels | None = None
        self.lr = np.stack([shrink(face, LR_SIDE) for face in hr])
        self._sites = {model: _write_site(folder / model, model) for model in MODELS}
        self._bytes = {model: _loaded_bytes(site) for model, site in self._sites.items()}
        self._made: dict[str, Pixels] = {}
        self._turns_ms: dict[str, list[float]] = {model: [] for model in MODELS}

    def run(self) -> None:
        """Another turn of each model: every face, the first of which compiles."""
        for model, site in self._sites.items():
            with _serving(site) as address:
                self._page.visit(address)
                backend = self._page.evaluate(f"start({BACKEND!r}, {model!r})")
                assert backend == BACKEND, backend
                made = [self._page.evaluate(UPSCALE % _levels(face)) for face in self.lr]
                self._page.visit("about:blank")
            shape = (len(self.lr), SR_SIDE, SR_SIDE, 3)
            self._made[model] = np.array([each["levels"] for each in made], np.uint8).reshape(shape)
            self._turns_ms[model].append(statistics.median(each["ms"] for each in made[1:]))

    def rows(self) -> list[PeerRow]:
        """Bicubic upscaling, and the models."""
        bicubic = np.stack([upscale_bicubic(face) for face in self.lr])
        rows = [PeerRow("bicubic", self.psnr_y(bicubic), len(self.lr))]
        for model, made in self._made.items():
            ms = statistics.median(self._turns_ms[model])
            name = f"upscaler {UPSCALER.version}, {MODELS[model].name} 8x"
            rows.append(PeerRow(name, self.psnr_y(made), len(made), ms, self._bytes[model]))
        return rows

    def psnr_y(self, sr: Pixels) -> float:
        """The mean over the faces."""
        return statistics.fmean(psnr_y(*pair) for pair in zip(sr, self._hr, strict=True))


def peer_table(rows: Sequence[PeerRow]) -> str:
    """The table of docs/browser.md."""
    lines = [
        f"| {rows[0].faces} real faces of {LR_SIDE} px, same browser | PSNR-Y, dB | ms a face |"
        " MB loaded |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        ms = "" if row.ms is None else f"{row.ms:.0f}"
        loaded = "" if row.loaded_bytes is None else f"{row.loaded_bytes / 1e6:.1f}"
        lines.append(f"| {row.upscaler} | {row.psnr_y:.2f} | {ms} | {loaded} |")
    return "\n".join(lines)


def _loaded_bytes(site: Path) -> int:
    files = [path for path in site.iterdir() if path.name not in UNUSED]
    return sum(path.stat().st_size for path in files)


def _levels(face: Pixels) -> tuple[str, int]:
    return json.dumps(face.flatten().tolist()), face.shape[0]


@contextmanager
def _serving(site: Path) -> Iterator[str]:
    with make_server(site, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


def _write_site(folder: Path, model: str) -> Path:
    """The peer's page, its scripts and its weights."""
    name = MODELS[model].name.rpartition("/")[2]
    taken = {
        UPSCALER: {"dist/browser/umd/upscaler.js": "upscaler.js"},
        TENSORFLOW: {"dist/tf.min.js": "tf.min.js"},
        TENSORFLOW_WASM: {
            "dist/tf-backend-wasm.min.js": "tf-backend-wasm.min.js",
            **{f"dist/{build}": build for build in WASM_BUILDS},
        },
        MODELS[model]: {
            f"dist/umd/models/{name}/src/x8/index.js": "model.js",
            "models/x8/model.json": "model.json",
            "models/x8/group1-shard1of1.bin": "group1-shard1of1.bin",
        },
    }
    for package, files in taken.items():
        for member, data in npm.read_members(npm.fetch(package), list(files)).items():
            write_bytes(folder / files[member], data)
    write_bytes(folder / "index.html", PAGE.read_bytes())
    return folder
