"""The manifest beside an artifact (`<file>.json`): what it is, of what it was made, how it did."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.atomic import read_bytes, sha256_bytes, write_bytes
from runtime.cpu import processor
from runtime.errors import EdgeError
from runtime.formats import format_of
from runtime.network import Network

if TYPE_CHECKING:
    from runtime.drift import Fidelity

SCHEMA_VERSION = 3
LR_SIDES = (16, 32, 64)  # px of the faces that a model may read; the paper's networks: 16
# What manifests of older schemas do not have, and mean.
OLDER: Mapping[int, Mapping[str, Any]] = {1: {"lr_side": 16, "network": None}, 2: {"network": None}}
PRECISIONS = ("fp32", "fp16", "int8", "fp8")
TARGETS = ("any", "cpu", "openvino", "tensorrt", "litert", "ncnn", "coreml")
PROBES = "probes.npz"
MAX_MANIFEST_BYTES = 1 << 20
MAX_DROP_DB = (
    0.03  # PSNR-Y that a smaller artifact may lose against FP32, where nothing else is said
)


@dataclass(frozen=True)
class Measurement:
    """How close an artifact came to FP32 on the probes, in one backend on one processor.

    `emulated`: this backend stood in for the one that the artifact was made for.
    """

    backend: str
    backend_version: str
    processor: str
    fidelity_db: float
    worst_fidelity_db: float
    extremes_fidelity_db: float
    emulated: bool = False

    @classmethod
    def of(
        cls, fidelity: Fidelity, backend: str, backend_version: str, *, emulated: bool = False
    ) -> Measurement:
        """What the probes showed in a backend on this machine."""
        return cls(
            backend=backend,
            backend_version=backend_version,
            processor=processor(),
            fidelity_db=fidelity.fidelity_db,
            worst_fidelity_db=fidelity.worst_fidelity_db,
            extremes_fidelity_db=fidelity.extremes_fidelity_db,
            emulated=emulated,
        )


@dataclass(frozen=True)
class Manifest:
    """What an artifact is. `executes_as` begins with the precision that it is computed in.

    `lr_side` (px) is that of the faces it reads. `psnr_y` (dB) is the FP32 model's on celeba-val;
    with `max_drop_db` it makes the drift budget. `random_weights`: for tests; the runtime refuses
    them. `network`: how to run it, if it is another network than AMINet.
    """

    model: str
    precision: str
    target: str
    sha256: str
    checkpoint_sha256: str
    probes_sha256: str
    executes_as: str
    lr_side: int = 16
    network: Network | None = None
    parent_sha256: str | None = None
    calibration_sha256: str | None = None
    random_weights: bool = False
    psnr_y: float | None = None
    max_drop_db: float = MAX_DROP_DB
    tools: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    measured_on: tuple[Measurement, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _check_fields(self, _MANIFEST_CHECKS)
        for measurement in self.measured_on:
            _check_fields(measurement, _MEASUREMENT_CHECKS)

    @property
    def computed_in(self) -> str:
        """The precision that `executes_as` begins with; the words after it say more."""
        return re.split(r"\W", self.executes_as, maxsplit=1)[0]

    @property
    def digest(self) -> str:
        """The SHA-256 of the canonical JSON: keys sorted, no spaces, without the digest itself."""
        return _digest(asdict(self))


def manifest_path(artifact: str | Path) -> Path:
    """`fp32.onnx` -> `fp32.onnx.json`."""
    return Path(f"{artifact}.json")


def probes_path(artifact: str | Path) -> Path:
    """The probes of an artifact's model: all artifacts of its folder share one `probes.npz`.

    The files of a device lie deeper, as in trt/<capability>-<version>; the nearest probes are
    theirs.
    """
    path = Path(artifact)
    folders = [path.parent, *path.parent.parents[: format_of(path).depth]]
    found = (folder for folder in folders if (folder / PROBES).is_file())
    return next(found, folders[-1]) / PROBES


def write_manifest(artifact: str | Path, manifest: Manifest) -> None:
    """Write the manifest of `artifact` atomically."""
    write_bytes(manifest_path(artifact), encode_manifest(manifest))


def encode_manifest(manifest: Manifest) -> bytes:
    """The content of a manifest's file: JSON with the digest."""
    content = {**asdict(manifest), "digest": manifest.digest}
    return f"{json.dumps(content, indent=2, sort_keys=True, allow_nan=False)}\n".encode()


def read_manifest(artifact: str | Path) -> Manifest:
    """Read the manifest of `artifact`; EdgeError if it is missing, altered or of a newer schema.

    One of an older schema becomes one of today's, with what it meant. It does not look at the
    artifact: a session compares the hashes with the files.
    """
    path = manifest_path(artifact)
    if not path.exists():
        raise EdgeError(
            f"{path}: not found, and without its manifest an artifact is not opened. {_FIX}"
        )
    content = _parse(path)
    version = content.get("schema_version")
    if type(version) is not int or version not in (SCHEMA_VERSION, *OLDER):
        raise EdgeError(f"{path}: has schema version {version}, expected {SCHEMA_VERSION}. {_FIX}")
    stated_digest = content.pop("digest", None)
    try:
        digest = _digest(content)
        manifest = _from_json(_upgraded(content))
    except (TypeError, ValueError, RecursionError) as error:
        raise EdgeError(f"{path}: does not fit the schema: {error}. {_FIX}") from error
    if stated_digest != digest:
        raise EdgeError(f"{path}: was altered, its digest does not fit. {_FIX}")
    return manifest


_FIX = "Create both again with: python -m export.onnx; smaller ones with: python -m quantize.int8"


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(
            read_bytes(path, MAX_MANIFEST_BYTES).decode(), parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise EdgeError(f"{path}: is not JSON ({error}). {_FIX}") from error
    if not isinstance(content, dict):
        raise EdgeError(f"{path}: is not a manifest, expected a JSON object. {_FIX}")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(canonical.encode())


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of today's schema, from those of any."""
    added = OLDER.get(content["schema_version"], {})
    if present := sorted(added.keys() & content.keys()):
        raise ValueError(f"{', '.join(present)} unknown")
    return {**content, **added, "schema_version": SCHEMA_VERSION}


def _from_json(content: dict[str, Any]) -> Manifest:
    _check_names(Manifest, content)
    measurements = content["measured_on"]
    if not isinstance(measurements, list):
        raise TypeError("measured_on is not a list")
    for measurement in measurements:
        _check_names(Measurement, measurement)
    measured_on = tuple(Measurement(**measurement) for measurement in measurements)
    network = content["network"]
    if network is not None:
        _check_names(Network, network)
        network = Network(**network)
    return Manifest(**{**content, "measured_on": measured_on, "network": network})


def _check_names(kind: type, content: Any) -> None:
    if not isinstance(content, dict):
        raise TypeError(f"expected the fields of a {kind.__name__}, got {content!r}")
    expected = {f.name for f in fields(kind)}
    if missing := sorted(expected - content.keys()):
        raise ValueError(f"{', '.join(missing)} missing")
    if unknown := sorted(content.keys() - expected):
        raise ValueError(f"{', '.join(unknown)} unknown")


Check = Callable[[Any], bool]


def _check_fields(value: Manifest | Measurement, checks: Mapping[str, Check]) -> None:
    for name, fits in checks.items():
        if not fits(getattr(value, name)):
            raise ValueError(f"{name} is {getattr(value, name)!r}")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1000


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_db(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _or_none(fits: Check) -> Check:
    return lambda value: value is None or fits(value)


_MANIFEST_CHECKS: Mapping[str, Check] = {
    "model": _is_text,
    "precision": lambda value: value in PRECISIONS,
    "target": lambda value: value in TARGETS,
    "sha256": _is_sha256,
    "checkpoint_sha256": _is_sha256,
    "probes_sha256": _is_sha256,
    "executes_as": _is_text,
    "computed_in": lambda value: value in PRECISIONS,
    "lr_side": lambda value: value in LR_SIDES and isinstance(value, int),
    "network": _or_none(lambda value: isinstance(value, Network)),
    "parent_sha256": _or_none(_is_sha256),
    "calibration_sha256": _or_none(_is_sha256),
    "random_weights": _is_flag,
    "psnr_y": _or_none(_is_db),
    "max_drop_db": lambda value: _is_db(value) and 0 < value <= 10,
    "tools": lambda value: (
        isinstance(value, Mapping) and all(map(_is_text, [*value.keys(), *value.values()]))
    ),
    "flags": lambda value: isinstance(value, Mapping) and all(map(_is_text, value)),
    "measured_on": lambda value: isinstance(value, tuple),
}

_MEASUREMENT_CHECKS: Mapping[str, Check] = {
    "backend": _is_text,
    "backend_version": _is_text,
    "processor": _is_text,
    "fidelity_db": _is_db,
    "worst_fidelity_db": _is_db,
    "extremes_fidelity_db": _is_db,
    "emulated": _is_flag,
}
