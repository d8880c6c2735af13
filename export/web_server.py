"""A web server on this machine for the page, with the headers that threads need."""

import functools
import re
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from runtime.errors import EdgeError

HOST = "127.0.0.1"  # browsers trust it as they trust https://
PORT = 8137
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # the browser asks whether a file has changed
}


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of one folder, and says nothing of each request."""

    protocol_version = "HTTP/1.1"
    extensions_map = {"": "application/octet-stream", **TYPES}  # noqa: RUF012

    def __init__(self, *arguments: object, headers_sent: dict[str, str], directory: str) -> None:
        self._headers_sent = headers_sent
        super().__init__(*arguments, directory=directory)  # type: ignore[arg-type]

    def end_headers(self) -> None:
        for name, value in self._headers_sent.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: object) -> None:
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        pass


def make_server(
    site: Path, port: int, *, isolated: bool = True, host: str = HOST
) -> ThreadingHTTPServer:
    """A server for a site; `isolated` with the COOP and COEP headers. EdgeError if it cannot be."""
    page = site / "index.html"
    if not page.is_file():
        raise EdgeError(f"{page}: not found. Create it with: python -m export.web --out {site}")
    headers = {**ALWAYS, "Content-Security-Policy": _policy(page)}
    if isolated:
        headers |= ISOLATION
    handler = functools.partial(Handler, headers_sent=headers, directory=str(site))
    try:
        return ThreadingHTTPServer((host, port), handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EdgeError(
            f"port {port} cannot be used ({reason.lower()}); name another: --serve PORT"
        ) from error


def serve(site: Path, port: int, model: str) -> None:
    """Serve a site until it is interrupted, and say of which model it is."""
    with make_server(site, port) as server:
        print(  # noqa: T201
            f"http://{HOST}:{server.server_address[1]}/ serves {site}, {model}; Ctrl-C ends it",
            file=sys.stderr,
            flush=True,
        )
        server.serve_forever()


def _policy(page: Path) -> str:
    """The page's own policy, and what only a header can say."""
    found = re.search(
        r'http-equiv="Content-Security-Policy" content="([^"]+)"', page.read_text("utf-8")
    )
    if found is None:
        raise EdgeError(f"{page}: has no content security policy; make it again")
    return f"{found[1]}; frame-ancestors 'none'"
