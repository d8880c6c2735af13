"""What runs on this machine, what does not, and the fix: `python -m runtime.doctor`.

It verifies what infer verifies, opens what infer would open, and exits as infer would.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from runtime.arguments import add_artifact_arguments
from runtime.errors import run_command

if TYPE_CHECKING:
    from runtime.diagnosis import (
        ArtifactState,
        DoctorReport,
        KnownChoice,
        KnownVerdict,
        Outlook,
        Part,
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    from runtime import cache
    from runtime.backends.open import with_provider
    from runtime.diagnosis import examine

    if arguments.forget:
        print(f"{cache.forget()} records forgotten", file=sys.stderr)
    backend = with_provider(arguments.backend, arguments.provider)
    report = examine(arguments.artifact, backend, _say)
    print(json.dumps(asdict(report)) if arguments.json else "\n".join(_lines(report)))
    if report.infer.error:
        print(f"error: {report.infer.error}", file=sys.stderr)
    return report.infer.status


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _lines(report: DoctorReport) -> list[str]:
    lines = [
        f"machine    {report.processor.partition(' (')[0]}, {report.cores} cores,"
        f" {report.system}, Python {report.python}",
        f"           {_say_features(report.features)}",
    ]
    lines += _block("infer", [_say_outlook(report.infer)])
    lines += _block("backends", [_say_part(part, part.name) for part in report.backends])
    lines += _block("inputs", [_say_part(part, _serves(part.name)) for part in report.inputs])
    lines += _block("artifacts", [_say_artifact(artifact) for artifact in report.artifacts])
    verdicts = dict.fromkeys(_say_verdict(verdict) for verdict in report.verdicts)
    lines += _block("verdicts", [*verdicts, *_say_others(report.other_verdicts)])
    choices = [_say_choice(choice) for choice in report.choices]
    lines += _block("choices", [*choices, *_say_others(report.other_choices)])
    lines += _block("cache", [report.cache or "none: there is no home"])
    return lines + _block("advice", report.advice)


def _block(title: str, lines: Sequence[str]) -> list[str]:
    starts = [title, *[""] * len(lines)]
    return [f"{start:11}{line}" for start, line in zip(starts, lines or ["none"], strict=False)]


def _say_features(features: dict[str, bool | None]) -> str:
    if None in features.values():
        return f"unknown whether it has {', '.join(features)}"
    present = " ".join(name for name, here in features.items() if here) or "none of what matters"
    absent = " ".join(name for name, here in features.items() if not here)
    return f"has {present}; has not {absent}" if absent else f"has {present}"


def _say_outlook(outlook: Outlook) -> str:
    if outlook.error:
        return f"fails with exit status {outlook.status}: {outlook.error}"
    return (
        f"runs {outlook.artifact} ({outlook.precision}) in {outlook.backend}"
        f" {outlook.backend_version}: {outlook.fidelity_db:.1f} dB to FP32 on the probes, at least"
        f" {outlook.limit_db:.1f}; one image alone may run otherwise, see choices"
    )


def _serves(name: str) -> str:
    from runtime.diagnosis import SERVES

    return SERVES[name]


def _say_part(part: Part, name: str) -> str:
    return f"{name} {part.version}" if part.version else f"{name}: not installed; {part.install}"


def _say_artifact(artifact: ArtifactState) -> str:
    if artifact.error:
        return artifact.error
    measured = ", ".join(f"{db:.1f} dB in {name}" for name, db in artifact.fidelity_db.items())
    return f"{artifact.path}: {artifact.executes_as}; {measured or 'not measured'}"


def _say_verdict(verdict: KnownVerdict) -> str:
    return (
        f"{verdict.artifact}: {verdict.fidelity_db:.1f} dB to FP32 in {verdict.backend}"
        f" ({verdict.options})"
    )


def _say_choice(choice: KnownChoice) -> str:
    workers = f", {choice.workers} workers" if choice.workers > 1 else ""
    batch = f", batches of {choice.batch}" if choice.batch > 1 else ""
    return (
        f"{choice.folder}: {choice.artifact} in {choice.backend}, {choice.face_ms:.2f} ms a face"
        f"{workers}{batch}{', for one image' if choice.once else ''}"
    )


def _say_others(count: int) -> list[str]:
    return [f"{count} of artifacts elsewhere, or gone: --forget"] if count else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.doctor",
        description="Show what this machine has, what infer would run on it and whether that is"
        " sound, what is remembered, and what would be faster. Exits as infer would.",
    )
    add_artifact_arguments(parser, positional=True)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--forget",
        action="store_true",
        help="forget verdicts and choices first: they are measured again",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
