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
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.browser_peer import BrowserPeer, PeerRow, peer_table
from benchmarks.harness.chromium import NO_GPU, SOFTWARE_WEBGPU, Page, find_chromium, open_page
from benchmarks.harness.machine import machine
from benchmarks.harness.targets import TargetRow, targets_table, write_rows
from export import web
from export.web_manifest import LITERT_FILE
from export.web_server import make_server
from runtime.cpu import processor
from runtime.dataset import load_faces
from runtime.errors import EXIT_DRIFT, EXIT_MISSING, EXIT_USAGE, EdgeError, run_command
from runtime.evaluation import Evaluation, Evaluator
from runtime.image import SR_SIDE, Pixels, Tensor, shrink, to_pixels, to_tensor
from runtime.session import DEFAULT_MODEL, open_session

ARTIFACTS = Path("artifacts", DEFAULT_MODEL)
OUT = Path("docs", "measured", "web.json")
COMMAND = "python -m benchmarks.studies.browser"
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
RUNTIMES = {"onnxruntime-web": "ONNX Runtime Web", "@litertjs/core": "LiteRT.js"}
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


@dataclass(frozen=True)
class Speed:
    """Milliseconds a face, the median of the turns; each is the median over the probe faces.

    `loaded_bytes` are all that the page loads for this backend.
    """

    runtime: str
    backend: str
    computes: str
    threads: int
    ms: float
    turns_ms: tuple[float, ...]
    loaded_bytes: int


@dataclass(frozen=True)
class BrowserReport:
    """`browser` is its name and version; `note` says what the speeds are worth."""

    rows: tuple[TargetRow, ...]
    speeds: tuple[Speed, ...]
    peers: tuple[PeerRow, ...]
    browser: str
    note: str


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
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        site = Path(folder, "site")
        web.build(site, artifacts, tarballs, litert=any("litert" in query for query in backends))
        hr = load_faces(data, SR_SIDE, FACES) if data else None
        evaluator = None if hr is None else _evaluator(artifacts, hr)
        page = stack.enter_context(open_page(chromium, flags))
        peers = None if hr is None or not peer else BrowserPeer(page, hr[:PEER_FACES], Path(folder))
        _, _, version = page.ask("Browser.getVersion")["product"].partition("/")
        browser = f"{'Chromium' if 'chromium' in chromium else 'Chrome'} {version}"
        attempts: dict[str, list[dict[str, Any]]] = {query: [] for query in backends}
        evaluations: dict[str, Evaluation] = {}
        for turn in range(turns):
            for query in backends:
                with _opened(page, site, query):
                    attempts[query].append(_chosen(page, query))
                    if turn == 0 and evaluator:
                        evaluations[query] = evaluator.evaluate(lambda lr: _run(page, lr))
                    if turn == 0 and peers and query == OURS:
                        ours_psnr_y = peers.psnr_y(to_pixels(_run(page, to_tensor(peers.lr))))
            if peers:
                peers.run()
        manifest = json.loads((site / web.MANIFEST).read_bytes())
        peer_rows = peers.rows() if peers else []
    loads.append(os.getloadavg()[0])
    rows, speeds = [], []
    for query, backend in backends.items():
        rows.append(_row(manifest, backend, attempts[query][0], evaluations.get(query), browser))
        speeds.append(_speed(manifest, backend, attempts[query]))
    if peer_rows:
        speed = speeds[list(backends).index(OURS)]
        name = f"{manifest['model']} {speed.computes}, {speed.runtime}, one thread"
        row = PeerRow(name, ours_psnr_y, len(hr[:PEER_FACES]), speed.ms, speed.loaded_bytes)
        peer_rows.append(row)
    return BrowserReport(tuple(rows), tuple(speeds), tuple(peer_rows), browser, _note(max(loads)))


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


def _row(
    manifest: Mapping[str, Any],
    backend: str,
    attempt: Mapping[str, Any],
    evaluation: Evaluation | None,
    browser: str,
) -> TargetRow:
    fidelity, file = attempt["fidelity"], attempt["route"]["artifact"]
    return TargetRow(
        target=f"{RUNTIMES[attempt['route']['runtime']]} {attempt['version']}, {backend}",
        file=f"{manifest['model']}/{Path(file).name}",
        bytes=manifest["files"][file]["bytes"],
        precision=_computes(attempt["route"]).replace("INT8", "int8").replace("FP32", "fp32"),
        fidelity_db=fidelity["fidelity_db"],
        worst_fidelity_db=fidelity["worst_fidelity_db"],
        extremes_fidelity_db=fidelity["extremes_fidelity_db"],
        ran_on=f"{browser}, {processor()}",
        command=COMMAND,
        drift_db=evaluation.drift_db if evaluation else None,
        worst_drift_db=evaluation.worst_drift_db if evaluation else None,
        faces=evaluation.faces if evaluation else 0,
    )


def _computes(route: Mapping[str, Any]) -> str:
    """As the page says it, without the runtime."""
    label: str = route["label"]
    return label.partition(" by ")[0]


def _speed(
    manifest: Mapping[str, Any], backend: str, attempts: Sequence[Mapping[str, Any]]
) -> Speed:
    route, turns_ms = attempts[0]["route"], tuple(attempt["ms"] for attempt in attempts)
    runtimes = {route["runtime"], "onnxruntime-web"}  # the detector needs it
    runtime = [
        name for each in runtimes for name in manifest["runtimes"][each][route["provider"]].values()
    ]
    page = [name for name in manifest["files"] if "/" not in name or name.startswith("runtimes/")]
    always = ["model/probes.json", "detector/centerface.onnx", f"{route['artifact']}.json"]
    loaded = [route["artifact"], *runtime, *page, *always]
    return Speed(
        runtime=RUNTIMES[route["runtime"]],
        backend=backend,
        computes=_computes(route),
        threads=attempts[0]["threads"],
        ms=statistics.median(turns_ms),
        turns_ms=turns_ms,
        loaded_bytes=sum(manifest["files"][name]["bytes"] for name in loaded),
    )


def _note(load: float) -> str:
    busy = load > BUSY * (os.cpu_count() or 1)
    worth = "other work slowed it down" if busy else "the machine was quiet"
    return f"load average {load:.1f}, {worth}"


def browser_tables(content: Mapping[str, Any]) -> str:
    """The tables of docs/browser.md, from the JSON that --out writes."""
    lines = [
        "| runtime | backend | computes in | threads | ms a face | MB loaded |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each['runtime']} | {each['backend']} | {each['computes']} | {each['threads']} |"
        f" {each['ms']:.0f} | {each['loaded_bytes'] / 1e6:.1f} |"
        for each in content["speeds"]
        if "emulated" not in each["backend"]  # says nothing of a GPU
    ]
    rows = [TargetRow(**row) for row in content["rows"]]
    measured = f"Measured in {content['browser']}; {content['note']}."
    tables = [targets_table(rows), "\n".join(lines)]
    if content["peers"]:
        tables.append(peer_table([PeerRow(**row) for row in content["peers"]]))
    return "\n\n".join([*tables, measured])


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
