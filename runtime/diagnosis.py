"""What this machine has and remembers, which artifacts are sound, and what infer would run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime import cache
from runtime.artifact import read_artifact
from runtime.backends.installed import PACKAGES, has_nvidia_driver, installed_version
from runtime.backends.open import AUTO
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
from runtime.errors import EdgeError
from runtime.formats import FORMATS
from runtime.manifest import read_manifest
from runtime.media import centerface
from runtime.places import FOLDER, PACKED
from runtime.selection import ONE_IMAGE
from runtime.session import open_session

EXTRAS = {  # a backend, or the module that an extra brings, and the command that installs it
    "onnxruntime": "pip install onnxruntime",
    "openvino": "pip install 'aminet-edge[openvino]'",
    "litert": "pip install 'aminet-edge[litert]'",
    "ncnn": "pip install 'aminet-edge[ncnn]'",
    "tensorrt": "pip install 'aminet-edge[tensorrt]'",
    "tensorrt_rtx": "pip install 'aminet-edge[tensorrt-rtx]'",
    "pillow_heif": "pip install 'aminet-edge[photo]'",
    "av": "pip install 'aminet-edge[video]'",
}
TENSORRT = ("tensorrt", "tensorrt_rtx")
DETECTOR = "CenterFace"
SERVES = {DETECTOR: "photos", "pillow_heif": "photos in HEIC", "av": "video"}


@dataclass(frozen=True)
class Part:
    """A backend, or what photos and video need; `install` where it is missing."""

    name: str
    version: str | None
    install: str | None


@dataclass(frozen=True)
class ArtifactState:
    """An artifact whose file, manifest and probes fit, or what is wrong with them.

    `fidelity_db` was measured where it was made, by backend.
    """

    path: str
    precision: str | None
    executes_as: str | None
    fidelity_db: dict[str, float]
    error: str | None


@dataclass(frozen=True)
class Outlook:
    """What infer would run here, or the error and the exit status that it would end with."""

    artifact: str | None = None
    backend: str | None = None
    backend_version: str | None = None
    precision: str | None = None
    fidelity_db: float | None = None
    limit_db: float | None = None
    error: str | None = None
    status: int = 0


@dataclass(frozen=True)
class KnownVerdict:
    """A remembered verdict: the fidelity to FP32 on the probes."""

    artifact: str
    backend: str
    options: str
    fidelity_db: float


@dataclass(frozen=True)
class KnownChoice:
    """A remembered choice among the artifacts of a folder, and the shape in which it is called.

    `once`: for commands with one image, where the start counts as well.
    """

    folder: str
    artifact: str
    backend: str
    face_ms: float
    workers: int
    threads: int | None
    batch: int
    once: bool


@dataclass(frozen=True)
class DoctorReport:
    """This machine, what is installed on it, what is remembered, and what would be faster.

    Other verdicts and choices are those of artifacts that are elsewhere, or gone.
    """

    python: str
    system: str
    processor: str
    cores: int
    features: dict[str, bool | None]  # None where it cannot be known
    backends: tuple[Part, ...]
    inputs: tuple[Part, ...]
    artifacts: tuple[ArtifactState, ...]
    infer: Outlook
    cache: str | None
    verdicts: tuple[KnownVerdict, ...]
    other_verdicts: int
    choices: tuple[KnownChoice, ...]
    other_choices: int
    advice: tuple[str, ...]


def examine(
    artifact: str | None = None,
    backend: str = AUTO,
    say: Callable[[str], None] = lambda line: None,
) -> DoctorReport:
    """Verify all artifacts, and open what infer would open with the same arguments.

    What is wrong with them is in the report; `say` hears what takes long at a first start.
    """
    outlook = _infer(artifact, backend, say)
    backends = tuple(_part(name) for name in (*PACKAGES, *TENSORRT))
    paths = find_all_artifacts(artifact)
    artifacts = tuple(_artifact(path) for path in paths)
    names = {_digest(path): path for path in paths}
    verdicts, other_verdicts = _verdicts(names)
    choices, other_choices = _choices(names)
    folder = cache.cache_folder()
    return DoctorReport(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=usable_cores(),
        features=_features(),
        backends=backends,
        inputs=tuple(_detector() if name == DETECTOR else _part(name) for name in SERVES),
        artifacts=artifacts,
        infer=outlook,
        cache=str(folder) if folder else None,
        verdicts=verdicts,
        other_verdicts=other_verdicts,
        choices=choices,
        other_choices=other_choices,
        advice=tuple(_advice(backends, artifacts)),
    )


def find_all_artifacts(artifact: str | None = None) -> list[Path]:
    """The files of all formats in a model's folder; without one, in ./artifacts and the package."""
    if artifact is not None and not Path(artifact).is_dir():
        return [Path(artifact)]
    folders = [Path(artifact)] if artifact is not None else []
    for parent in [] if artifact is not None else [FOLDER.parent, PACKED.parent]:
        folders += sorted(folder for folder in parent.glob("*") if folder.is_dir())
    return [
        path
        for folder in folders
        for kind in FORMATS
        if kind.backends
        for path in sorted(folder.glob("*/" * kind.depth + f"*{kind.suffix}"))
    ]


def _infer(artifact: str | None, backend: str, say: Callable[[str], None]) -> Outlook:
    try:
        with open_session(artifact, backend, say=say) as session:
            assert session.verdict  # open_session verifies
            return Outlook(
                artifact=str(session.artifact),
                backend=session.backend,
                backend_version=session.backend_version,
                precision=session.manifest.computed_in,
                fidelity_db=session.verdict.fidelity_db,
                limit_db=session.verdict.limit_db,
            )
    except EdgeError as error:
        return Outlook(error=str(error), status=error.status)


def _part(name: str) -> Part:
    version = installed_version(PACKAGES.get(name, name))
    return Part(name, version, None if version else EXTRAS[name])


def _detector() -> Part:
    """The face detector, which is a file and no package."""
    found = centerface.is_installed()
    return Part(DETECTOR, DETECTOR if found else None, None if found else centerface.INSTALL)


def _features() -> dict[str, bool | None]:
    """The instructions that matter, of this kind of processor."""
    telling = ARM_FEATURES if is_arm() else X86_FEATURES
    present = cpu_features()
    return {name: None if present is None else name in present for name in telling}


def _artifact(path: Path) -> ArtifactState:
    try:
        manifest = read_artifact(path).manifest
    except EdgeError as error:
        return ArtifactState(str(path), None, None, {}, str(error))
    measured = {m.backend: round(m.fidelity_db, 1) for m in manifest.measured_on}
    return ArtifactState(str(path), manifest.computed_in, manifest.executes_as, measured, None)


def _digest(path: Path) -> str:
    try:
        return read_manifest(path).digest
    except EdgeError:
        return ""


def _verdicts(names: dict[str, Path]) -> tuple[tuple[KnownVerdict, ...], int]:
    """The verdicts on the artifacts of these digests, and the number of all others."""
    records = [(key, record) for key, record in cache.records() if "verdict" in key]
    known = [
        KnownVerdict(
            str(names[key["manifest"]]), key["backend"], key["options"], record["fidelity_db"]
        )
        for key, record in records
        if key.get("manifest") in names
    ]
    return tuple(known), len(records) - len(known)


def _choices(names: dict[str, Path]) -> tuple[tuple[KnownChoice, ...], int]:
    """The choices among the artifacts of these digests, and the number of all others."""
    records = [(key, record) for key, record in cache.records() if "choice" in key]
    known = [
        choice for key, record in records if (choice := _choice(key, record, names)) is not None
    ]
    return tuple(known), len(records) - len(known)


def _choice(
    key: dict[str, str], record: dict[str, Any], names: dict[str, Path]
) -> KnownChoice | None:
    """None if one of those it was made among is elsewhere, or if an older version made it."""
    compared = dict(each.rpartition(" ")[::2] for each in key["artifacts"].split(", "))
    shape = record.get("shape")
    if not compared.keys() or not set(compared.values()) <= names.keys() or shape is None:
        return None
    chosen = Path(record["artifact"])
    folder = names[compared[record["artifact"]]].parents[len(chosen.parts) - 1]
    return KnownChoice(
        folder=str(folder),
        artifact=record["artifact"],
        backend=record["backend"],
        face_ms=shape["face_ms"],
        workers=shape["workers"],
        threads=shape["threads"],
        batch=shape["batch"],
        once=key.get("for") == ONE_IMAGE,
    )


def _advice(backends: Sequence[Part], artifacts: Sequence[ArtifactState]) -> list[str]:
    missing = {part.name: part.install for part in backends if part.install}
    advice = []
    if "onnxruntime" in missing:
        advice.append(f"ONNX Runtime is missing: {missing['onnxruntime']}")
    if "openvino" in missing and not is_arm():
        advice.append(f"OpenVINO may be faster on this processor: {missing['openvino']}")
    if "litert" in missing and is_arm():
        advice.append(f"LiteRT may be faster on this processor: {missing['litert']}")
    if missing.keys() >= set(TENSORRT) and has_nvidia_driver():
        advice.append(f"an NVIDIA GPU is here, TensorRT would use it: {missing['tensorrt']}")
    if not any(Path(a.path).name.startswith("int8") and not a.error for a in artifacts):
        advice.append("no INT8 artifact is here, the fastest: python -m quantize.int8")
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
