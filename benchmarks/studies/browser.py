"""The page in headless Chromium: `python -m benchmarks.studies.browser --out web.json`.

A site is made of each model's artifacts and opened once for each backend of the browser: what its
probes find, what the same faces lose on `--data`, and how long a face takes. LiteRT.js is measured
where python -m export.litert has been run. Models and backends take turns, so that other load meets
all of them. Chromium emulates WebGPU in software, which proves its arithmetic and says nothing of
its speed: with `--webgpu` a second one runs the probes in it, which takes minutes. `--peer`
upscales the same faces by npm's upscaler, and compares it with the first model, which has to read
16 px as it does.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.browser_page import chosen, opened, run_faces
from benchmarks.harness.browser_peer import BrowserPeer, PeerRow
from benchmarks.harness.browser_report import (
    COMMAND,
    EMULATED,
    BrowserReport,
    Seen,
    Speed,
    browser_tables,
    speed_of,
    target_row,
)
from benchmarks.harness.chromium import SOFTWARE_WEBGPU, Page, find_chromium, open_page
from benchmarks.harness.machine import BUSY_SHARE, background_share, machine
from benchmarks.harness.study import add_models
from benchmarks.harness.targets import write_rows
from export import web
from export.web_manifest import LITERT_FILE
from runtime.dataset import load_faces
from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError, run_command
from runtime.evaluation import Evaluator
from runtime.image import LR_SIDE, SR_SIDE, Pixels, shrink, to_pixels, to_tensor
from runtime.manifest import read_manifest
from runtime.places import FOLDER
from runtime.session import open_session

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
WEBGPU = {"?provider=webgpu": f"WebGPU {EMULATED} in software"}  # whose time says nothing
OURS = "?runtime=onnxruntime-web&provider=wasm"  # what the peer is compared with
FACES, PEER_FACES, TURNS = 100, 50, 3
QUIET_S = 3.0  # for which the other processes are watched, before Chromium runs and after it


@dataclass(frozen=True)
class ModelSite:
    """A model's site, what judges its outputs on real faces, and its backends by their queries."""

    folder: Path
    manifest: Mapping[str, Any]
    evaluator: Evaluator | None
    backends: Mapping[str, str]


def measure(
    artifacts: Sequence[Path] = (FOLDER,),
    data: Sequence[Path] = (),
    backends: Mapping[str, str] = BACKENDS,
    turns: int = TURNS,
    tarballs: Sequence[Path] = (),
    peer: bool = False,
) -> BrowserReport:
    """Measure each model in each backend, in LiteRT.js too where it has a file for it.

    EdgeError, status 5, without Chromium, and 3 if one drifts.
    """
    if peer:
        _check_comparable(artifacts[0], data)
    chromium = find_chromium()
    if chromium is None:
        raise EdgeError("no Chromium found; apt-get install chromium", EXIT_MISSING)
    shares = [background_share(QUIET_S)]
    emulated = {query: backend for query, backend in backends.items() if query in WEBGPU}
    measured = {query: backend for query, backend in backends.items() if query not in WEBGPU}
    with tempfile.TemporaryDirectory() as folder, open_page(chromium) as page:
        hr = load_faces(data, SR_SIDE, FACES) if data else None
        sites = [
            _make_site(Path(folder, f"site-{number}"), source, hr, measured, tarballs)
            for number, source in enumerate(artifacts)
        ]
        peers = None
        if peer and hr is not None:
            peers = BrowserPeer(page, hr[:PEER_FACES], Path(folder))
        seen = [_take_turn(page, sites, peers, evaluate=turn == 0) for turn in range(turns)]
        _, _, version = page.ask("Browser.getVersion")["product"].partition("/")
        browser = f"{'Chromium' if 'chromium' in chromium else 'Chrome'} {version}"
        proved = _prove(chromium, [replace(site, backends=emulated) for site in sites])
    shares.append(background_share(QUIET_S))
    rows, speeds = [], []
    for number, site in enumerate(sites):
        for query, backend in site.backends.items():
            key = (number, query)
            attempts = [turn[key].attempt for turn in seen]
            rows.append(target_row(site.manifest, backend, seen[0][key], browser))
            speeds.append(speed_of(site.manifest, backend, attempts))
        for query, backend in emulated.items():
            rows.append(target_row(site.manifest, backend, proved[number, query], browser))
    ours = speeds[list(sites[0].backends).index(OURS)] if peers else None
    return BrowserReport(
        rows=tuple(rows),
        speeds=tuple(speeds),
        peers=_peer_rows(peers, sites[0].manifest, ours) if peers and ours else (),
        browser=browser,
        note=_note(max(shares)),
    )


def _make_site(
    folder: Path,
    artifacts: Path,
    hr: Pixels | None,
    backends: Mapping[str, str],
    tarballs: Sequence[Path],
) -> ModelSite:
    litert = (artifacts / LITERT_FILE).is_file()
    web.build(folder, artifacts, tarballs, litert=litert)
    manifest = json.loads((folder / web.MANIFEST).read_bytes())
    evaluator = _evaluator(artifacts, hr) if hr is not None else None
    return ModelSite(folder, manifest, evaluator, {**backends, **(LITERT if litert else {})})


def _prove(chromium: str, sites: Sequence[ModelSite]) -> dict[tuple[int, str], Seen]:
    """Run the probes in the emulated backends of a Chromium of their own."""
    if not any(site.backends for site in sites):
        return {}
    with open_page(chromium, SOFTWARE_WEBGPU) as page:
        return _take_turn(page, sites, None, evaluate=False)


def _check_comparable(artifacts: Path, data: Sequence[Path]) -> None:
    if not data:
        raise EdgeError("--peer needs --data: faces to upscale", EXIT_USAGE)
    side = read_manifest(artifacts / "fp32.onnx").lr_side
    if side != LR_SIDE:
        raise EdgeError(
            f"--peer upscales faces of {LR_SIDE} px, and {artifacts} reads {side} px; name"
            f" {FOLDER} first",
            EXIT_USAGE,
        )


def _take_turn(
    page: Page, sites: Sequence[ModelSite], peers: BrowserPeer | None, *, evaluate: bool
) -> dict[tuple[int, str], Seen]:
    """Open each model's page for each of its backends, and then the peer's."""
    seen = {}
    for number, site in enumerate(sites):
        for query in site.backends:
            with opened(page, site.folder, query):
                evaluation = None
                if evaluate and site.evaluator:
                    evaluation = site.evaluator.evaluate(lambda lr: run_faces(page, lr))
                seen[number, query] = Seen(chosen(page, query), evaluation)
                if peers and number == 0 and query == OURS:
                    peers.ours = to_pixels(run_faces(page, to_tensor(peers.lr)))
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


def _note(share: float) -> str:
    worth = "slowed it down" if share > BUSY_SHARE else "the machine was quiet"
    return f"before and after, other work took {share:.0%} of the CPU: {worth}"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _measure, argv)


def _measure(arguments: argparse.Namespace) -> int:
    report = measure(
        arguments.artifact,
        arguments.data,
        {**BACKENDS, **(WEBGPU if arguments.webgpu else {})},
        arguments.turns,
        arguments.npm_tarball,
        arguments.peer,
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
    add_models(parser)
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
