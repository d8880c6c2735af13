"""The page of a site, open in a Chromium: what it chose, and faces that it runs."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.chromium import Page
from export.web_server import make_server
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.image import SR_SIDE, Tensor

TIMEOUT_S = 900
RUN = """selection.engine.call('run', {lr: {dims: %s, data: new Float32Array(
    Uint8Array.from(atob('%s'), c => c.charCodeAt(0)).buffer)}}).then(sr => {
    const bytes = new Uint8Array(sr.data.buffer, sr.data.byteOffset, sr.data.byteLength);
    let text = '';
    for (let i = 0; i < bytes.length; i += 32768) {
        text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    }
    return btoa(text);
})"""


@contextmanager
def opened(page: Page, site: Path, query: str) -> Iterator[None]:
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


def chosen(page: Page, query: str) -> dict[str, Any]:
    chosen: dict[str, Any] | None = page.evaluate("globalThis.selection?.chosen")
    if chosen is None:
        said = page.evaluate("document.getElementById('status').innerText").splitlines()
        raise EdgeError(f"{query}: the page refused it: {' '.join(filter(None, said))}", EXIT_DRIFT)
    return chosen


def run_faces(page: Page, lr: Tensor) -> Tensor:
    """Run faces (N, 3, S, S) in the page, one by one, as it runs them."""
    outputs = []
    for face in lr:
        content = base64.b64encode(np.ascontiguousarray(face, np.float32).tobytes()).decode()
        made = page.evaluate(RUN % (json.dumps([1, *face.shape]), content))
        outputs.append(np.frombuffer(base64.b64decode(made), np.float32))
    return np.stack(outputs).reshape(len(lr), 3, SR_SIDE, SR_SIDE)
