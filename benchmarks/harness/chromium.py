"""A real headless Chromium, driven over its debugging pipe: JSON, each message ended by a zero."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe", "--hide-scrollbars"),
)
NO_GPU = ("--disable-gpu",)
SOFTWARE_WEBGPU = (
    *("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"),
)
KEYS = {"ArrowLeft": (37, ""), "Tab": (9, ""), "Enter": (13, "\r")}
LOCAL = ("file:", "data:", "about:", "blob:")
# Chromium reads file descriptor 3 and writes 4.
LAUNCH = "import os, sys; r, w, *c = sys.argv[1:]; os.dup2(int(r), 13); os.dup2(int(w), 14); "
LAUNCH += "os.dup2(13, 3); os.dup2(14, 4); os.execvp(c[0], c)"


def find_chromium() -> str | None:
    """Where a Chromium or Chrome is installed, if one is."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab and its workers.

    `problems` are errors, exceptions and requests beyond the file itself; `requested` are all
    addresses, also those that a policy blocked.
    """

    def __init__(self, requests: IO[bytes], answers: BufferedReader) -> None:
        self._requests, self._answers = requests, answers
        self._number = 0
        self._session: str | None = None
        self._rest = b""
        self.problems: list[str] = []
        self.requested: list[str] = []
        self.allowed: tuple[str, ...] = LOCAL
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Runtime", "Log", "Page", "Network", "DOM"):
            self.ask(f"{domain}.enable")
        self._attach_workers(self._session)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        number = self._send(method, parameters, self._session)
        while (answer := self._read()).get("id") != number:
            pass
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, path: Path) -> None:
        self.visit(path.as_uri())

    def visit(self, url: str) -> None:
        """Open an address, and wait until it has loaded."""
        self.ask("Page.navigate", url=url)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """The value of an expression; a promise is waited for."""
        result = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"{expression} is not true after {seconds} s"
            time.sleep(0.05)
        return value

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a file input."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def press(self, key: str) -> None:
        """Press a key of the keyboard."""
        number, typed = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number}
            self.ask("Input.dispatchKeyEvent", **event, **({"text": typed} if typed else {}))

    def drag(self, selector: str, start: float, end: float) -> None:
        """Drag with the mouse across an element, from one part of its width to another."""
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        left, top, width, height = self.evaluate(
            f"(r => [r.left, r.top, r.width, r.height])"
            f"(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        steps = (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end))
        for kind, part in steps:
            place = {"x": left + part * width, "y": top + height / 2}
            self.ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone},
        )

    def prefer(self, scheme: str) -> None:
        """Choose 'light' or 'dark'."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> None:
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _send(self, method: str, parameters: dict[str, Any], session: str | None) -> int:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._requests.write(json.dumps(message).encode() + b"\0")
        self._requests.flush()
        return self._number

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._answers.read1(1 << 20)
            assert more, "Chromium has gone"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        method, event = content.get("method"), content.get("params", {})
        if method == "Target.attachedToTarget" and event["targetInfo"]["type"] == "worker":
            self._watch_worker(event["sessionId"])
        self._judge(method, event)
        return content

    def _attach_workers(self, session: str | None) -> None:
        """Ask for the workers that a page or a worker starts: they wait until they are watched."""
        how = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        self._send("Target.setAutoAttach", how, session)

    def _watch_worker(self, session: str) -> None:
        self._send("Network.enable", {}, session)
        self._attach_workers(session)
        self._send("Runtime.runIfWaitingForDebugger", {}, session)

    def _judge(self, method: str | None, event: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(event["exceptionDetails"]["text"])
        if method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.problems.append(str(event["args"]))
        if method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.problems.append(event["entry"]["text"])
        if method == "Network.requestWillBeSent":
            url = event["request"]["url"]
            self.requested.append(url)
            if not url.startswith(self.allowed):
                self.problems.append(url)


@contextlib.contextmanager
def open_page(chromium: str, flags: Sequence[str] = NO_GPU) -> Iterator[Page]:
    """Start a Chromium with a profile of its own and yield its one tab."""
    to_child, requests = os.pipe()
    answers, from_child = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", LAUNCH, str(to_child), str(from_child)),
                *(chromium, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(to_child, from_child),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        try:
            with os.fdopen(requests, "wb") as writer, os.fdopen(answers, "rb") as reader:
                yield Page(writer, reader)
        finally:
            process.terminate()
            process.wait(timeout=20)
