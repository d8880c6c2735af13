"""What `runtime.infer` prints: results on stdout as they come, progress and warnings on stderr."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from runtime.progress import Steps

if TYPE_CHECKING:
    from runtime.infer import InferReport
    from runtime.media.jobs import FaceResult

LISTED = 20  # results: more than these are counted, not listed


class Console:
    """Prints results as `form` says: text, json or lines; a context manager.

    With `to_stderr` text goes there, since stdout has the result itself.
    """

    def __init__(self, form: str, *, to_stderr: bool = False) -> None:
        self._form = form
        self._text: TextIO = sys.stderr if to_stderr else sys.stdout
        self._results: list[FaceResult] = []
        self._listed = 0
        self._places: dict[str, None] = {}
        self._steps = Steps()
        self._started = self._video_started = time.perf_counter()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.__exit__()

    def say(self, line: str) -> None:
        self._steps.__exit__()
        print(line, file=sys.stderr)

    def progress(self, done: int, total: int | None) -> None:
        if total != 1:
            self._show(done, total, self._started, "")

    def watch(self, done: int, total: int | None) -> None:
        if done == 1:
            self._video_started = time.perf_counter()
        self._show(done, total, self._video_started, " frames")

    def result(self, result: FaceResult) -> None:
        if self._form == "json":
            self._results.append(result)
        elif self._form == "lines":
            print(json.dumps(asdict(result)), flush=True)
        elif result.output and not result.skipped:
            self._list(result)
        if result.note and self._form == "text":
            self.say(f"{result.input}: {result.note}")
        if result.error:
            self.say(f"error: {result.error}")

    def end(self, report: InferReport) -> None:
        if self._form == "json":
            results = [asdict(result) for result in self._results]
            print(json.dumps({**asdict(report), "results": results}), file=self._text)
        for reason in report.passed_over:
            self.say(f"passed over: {reason}")
        if report.ignored and self._form != "json":
            kinds = ", ".join(f"{number} {name}" for name, number in sorted(report.ignored.items()))
            self.say(f"not looked at, no images or videos by their names: {kinds}")
        if report.skipped and self._form == "text":
            self.say(
                f"{report.skipped} {'was' if report.skipped == 1 else 'were'} done before;"
                " --overwrite makes them again"
            )
        if self._form == "text" and self._listed:
            self._summarize(report)

    def _list(self, result: FaceResult) -> None:
        self._listed += 1
        place = result.output.rpartition("/")[0] if result.output else ""
        if len(self._places) < 2:
            self._places.setdefault(place)
        if self._listed > LISTED:
            return
        self._steps.__exit__()
        print(f"{result.input} -> {result.output}  {_describe(result)}", file=self._text)
        if self._listed == LISTED:
            print("...", file=self._text)

    def _summarize(self, report: InferReport) -> None:
        remembered = ", remembered" if report.verdict_remembered else ""
        if self._listed > 1:
            (place, *more) = self._places
            where = f", in {place or '.'}{' and others' if more else ''}"
            rate = f", {report.faces_per_s:.1f} faces/s" if report.faces_per_s else ""
            print(
                f"{count(report.faces, 'face')} of {count(self._listed, 'input')} in"
                f" {report.seconds:.1f} s{rate}{where}",
                file=self._text,
            )
        if report.artifact:
            print(
                f"{' and '.join(report.artifacts)} ({report.executes_as}) in {report.backend}"
                f" {report.backend_version}: {report.fidelity_db:.1f} dB to FP32 on the probes, at"
                f" least {report.limit_db:.1f}{remembered}",
                file=self._text,
            )

    def _show(self, done: int, total: int | None, started: float, what: str) -> None:
        seconds = time.perf_counter() - started
        rate = f", {done / seconds:.1f}/s" if seconds > 1 else ""  # nothing is known of it before
        self._steps(f"{done:,}/{f'{total:,}' if total else '?'}{what}{rate}")


def count(number: int, what: str) -> str:
    """Such as '1 face' and '2 faces'."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _describe(result: FaceResult) -> str:
    if result.kind == "face":
        return f"{result.ms:.1f} ms"
    parts = [count(result.faces, "face")]
    if result.left_alone:
        parts.append(f"{result.left_alone} left alone")
    if result.scale:
        parts.append(f"{result.scale}x")
    if result.sound not in (None, "none"):
        parts.append(f"sound {result.sound}")
    return ", ".join([*parts, f"{result.ms:.0f} ms"])
