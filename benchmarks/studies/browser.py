"""The page in headless Chromium: `python -m benchmarks.studies.browser --out web.json`.

A site is made of the artifacts and opened once for each backend of the browser: what its probes
find, what the same faces lose on `--data`, and how long a face takes. LiteRT.js is measured where
python -m export.litert has been run. Backends take turns, so that other load meets all of them.
Chromium emulates WebGPU in software, which proves its arithmetic and says nothing of its speed; it
takes minutes and is left out without `--webgpu`. `--peer` upscales the same faces by npm's
upscaler.
"""

import argparse
import base64
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.browser_peer import BrowserPeer, PeerRow
from benchmarks.harness.browser_report import (
    COMMAND,
    BrowserReport,
    Seen,
    Speed,
    browser_tables,
    speed_of,
    target_row,
)
from benchmarks.harness.chromium import NO_GPU, SOFTWARE_WEBGPU, Page, find_chromium, open_page
from benchmarks.harness.machine import machine
from benchmarks.harness.targets import write_rows
from export import web
from export.web_manifest import LITERT_FILE
from export.web_server import make_server
from runtime.dataset import load_faces
from runtime.errors import EXIT_DRIFT, EXIT_MISSING, EXIT_USAGE, EdgeError, run_command
from runtime.evaluation import Evaluator
from runtime.image import SR_SIDE, Pixels, Tensor, shrink, to_pixels, to_tensor
from runtime.session import DEFAULT_MODEL, open_session

ARTIFACTS = Path("artifacts", DEFAULT_MODEL)
OUT = Path("docs", "measured", "web.json")
BACKENDS = {  # what the page is asked for, and what that is
    "?runtime=onnxruntime-web&provider=wasm-threads": "WebAssembly, threads",
    "?runtime=onnxruntime-web&provider=wasm": "WebAssembly, one thread",
    "?runtime=onnxruntime-web&provider=wasm&precision=fp32": "WebAssembly, one thread",
}
LITERT = {
    "?runtime=%40litertjs%2Fcore&provider=wasm-threads": "WebAssembly, threads",
    "?runtime=%40litertjs%2Fcore&provider=wasm": "WebAssembly, one thread",
}
WEBGPU = {"?provider=webgpu": "WebGPU emulated in software"}
OURS = "?runtime=onnxruntime-web&provider=wasm"  # what the peer is compared with
FACES, PEER_FACES, TURNS = 100, 50, 3
TIMEOUT_S = 900
BUSY = 0.5  # processes ready to run for each core, by the load average: other work was in the way
RUN = """selection.engine.call('run', {lr: {dims: %s, data: new Float32Array(
    Uint8Array.from(atob('%s'), c => c.charCodeAt(0)).buffer)}}).then(sr => {
    const bytes = new Uint8Array(sr.data.buffer, sr.data.byteOffset, sr.data.byteLength);
    let text = '';
    for (let i = 0; i < bytes.length; i += 32768) {
        text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    }
    return btoa(text);
})"""


def measure(
    artifacts: Path = ARTIFACTS,
    data: Sequence[Path] = (),
    backends: Mapping[str, str] = BACKENDS,
    turns: int = TURNS,
    tarballs: Sequence[Path] = (),
    peer: bool = False,
) -> BrowserReport:
    """Measure each backend; EdgeError, status 5, without Chromium, and 3 if one drifts."""
    chromium = find_chromium()
    if chromium is None:
        raise EdgeError("no Chromium found; apt-get install chromium", EXIT_MISSING)
    if peer and not data:
        raise EdgeError("--peer needs --data: faces to upscale", EXIT_USAGE)
    loads = [os.getloadavg()[0]]
    flags = SOFTWARE_WEBGPU if any("webgpu" in query for query in backends) else NO_GPU
    with tempfile.TemporaryDirectory() as folder, open_page(chromium, flags) as page:
        site = Path(folder, "site")
        web.build(site, artifacts, tarballs, litert=any("litert" in query for query in backends))
        evaluator, peers = None, None
        if data:
            hr = load_faces(data, SR_SIDE, FACES)
            evaluator = _evaluator(artifacts, hr)
            peers = BrowserPeer(page, hr[:PEER_FACES], Path(folder)) if peer else None
        seen = [_take_turn(page, site, backends, evaluator, peers)]
        seen += [_take_turn(page, site, backends, None, peers) for _ in range(turns - 1)]
        manifest = json.loads((site / web.MANIFEST).read_bytes())
        _, _, version = page.ask("Browser.getVersion")["product"].partition("/")
        browser = f"{'Chromium' if 'chromium' in chromium else 'Chrome'} {version}"
    loads.append(os.getloadavg()[0])
    rows, speeds = [], {}
    for query, backend in backends.items():
        rows.append(target_row(manifest, backend, seen[0][query], browser))
        speeds[query] = speed_of(manifest, backend, [turn[query].attempt for turn in seen])
    return BrowserReport(
        rows=tuple(rows),
        speeds=tuple(speeds.values()),
        peers=_peer_rows(peers, manifest, speeds[OURS]) if peers else (),
        browser=browser,
        note=_note(max(loads)),
    )


def _take_turn(
    page: Page,
    site: Path,
    backends: Mapping[str, str],
    evaluator: Evaluator | None,
    peers: BrowserPeer | None,
) -> dict[str, Seen]:
    """Open the page for each backend, and then the peer's."""
    seen = {}
    for query in backends:
        with _opened(page, site, query):
            evaluation = evaluator.evaluate(lambda lr: _run(page, lr)) if evaluator else None
            seen[query] = Seen(_chosen(page, query), evaluation)
            if peers and query == OURS:
                peers.ours = to_pixels(_run(page, to_tensor(peers.lr)))
    if peers:
        peers.run()
    return seen


def _peer_rows(
    peers: BrowserPeer, manifest: Mapping[str, Any], speed: Speed
) -> tuple[PeerRow, ...]:
    """The peer's, bicubic, and ours in one thread."""
    assert peers.ours is not None
    name = f"{manifest['model']} {speed.computes}, {speed.runtime}, one thread"
    quality = peers.psnr_y(peers.ours)
    ours = PeerRow(name, quality, len(peers.lr), speed.ms, speed.loaded_bytes)
    return (*peers.rows(), ours)


def _evaluator(artifacts: Path, hr: Pixels) -> Evaluator:
    with open_session(artifacts / "fp32.onnx", "onnxruntime") as session:
        lr = np.stack([shrink(face, session.lr_side) for face in hr])
        return Evaluator(session.run, lr, hr)


@contextmanager
def _opened(page: Page, site: Path, query: str) -> Iterator[None]:
    """The page, when it has come to its verdict; its workers end with the block."""
    with make_server(site, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.visit(f"http://127.0.0.1:{server.server_address[1]}/{query}")
        state = "document.getElementById('status').dataset.state !== 'loading'"
        page.wait_for(state, TIMEOUT_S)
        try:
            yield
        finally:
            page.visit("about:blank")
            server.shutdown()


def _chosen(page: Page, query: str) -> dict[str, Any]:
    chosen: dict[str, Any] | None = page.evaluate("globalThis.selection?.chosen")
    if chosen is None:
        said = page.evaluate("document.getElementById('status').innerText").splitlines()
        raise EdgeError(f"{query}: the page refused it: {' '.join(filter(None, said))}", EXIT_DRIFT)
    return chosen


def _run(page: Page, lr: Tensor) -> Tensor:
    """Run faces (N, 3, S, S) in the page, one by one, as it runs them."""
    outputs = []
    for face in lr:
        content = base64.b64encode(np.ascontiguousarray(face, np.float32).tobytes()).decode()
        made = page.evaluate(RUN % (json.dumps([1, *face.shape]), content))
        outputs.append(np.frombuffer(base64.b64decode(made), np.float32))
    return np.stack(outputs).reshape(len(lr), 3, SR_SIDE, SR_SIDE)


def _note(load: float) -> str:
    busy = load > BUSY * (os.cpu_count() or 1)
    worth = "other work slowed it down" if busy else "the machine was quiet"
    return f"load average {load:.1f}, {worth}"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _measure, argv)


def _measure(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.artifact)
    backends = {
        **BACKENDS,
        **(LITERT if (folder / LITERT_FILE).is_file() else {}),
        **(WEBGPU if arguments.webgpu else {}),
    }
    report = measure(
        folder, arguments.data, backends, arguments.turns, arguments.npm_tarball, arguments.peer
    )
    content = json.loads(json.dumps(asdict(report)))
    if arguments.out:
        facts = {name: value for name, value in content.items() if name != "rows"}
        write_rows(arguments.out, report.rows, {**facts, "machine": asdict(machine())})
    print(json.dumps(content) if arguments.json else browser_tables(content))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Measure the page in each backend of headless Chromium."
    )
    parser.add_argument("--artifact", default=ARTIFACTS, metavar="D", help=f"default: {ARTIFACTS}")
    parser.add_argument(
        "--data", nargs="+", type=Path, default=(), metavar="TAR_OR_DIR", help="real faces"
    )
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N", help=f"default: {TURNS}")
    parser.add_argument("--webgpu", action="store_true", help="also WebGPU, emulated: minutes")
    parser.add_argument("--peer", action="store_true", help="also npm's upscaler, on --data")
    parser.add_argument(
        "--npm-tarball", nargs="+", type=Path, default=(), metavar="F", help="as of export.web"
    )
    parser.add_argument("--out", metavar="F.json", help=f"write it too, such as {OUT}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
