"""An artifact's files: read only if its manifest describes them, and written atomically."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime import drift
from runtime.atomic import read_bytes, sha256_bytes, sha256_file, writing
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.formats import ONNX, format_of
from runtime.manifest import (
    Manifest,
    encode_manifest,
    manifest_path,
    probes_path,
    read_manifest,
)

MAX_ARTIFACT_BYTES = 1 << 30


@dataclass(frozen=True)
class Artifact:
    """An artifact and the bytes of its model's probes, both as the manifest's hashes say.

    `parts` are the files that belong to it, by name, where a format has more than one; `content`
    stands for the file where another one made from it is not written yet.
    """

    path: Path
    manifest: Manifest
    probes: bytes
    parts: Mapping[str, bytes] = field(default_factory=dict)
    content: bytes | None = None

    @property
    def model(self) -> bytes:
        """The bytes of the file, read now: a start from the optimized graph does without them.

        EdgeError if it is no longer what the manifest describes.
        """
        if self.content is not None:
            return self.content
        model = read_bytes(self.path, MAX_ARTIFACT_BYTES)
        _refuse_other(self.path, self.manifest, sha256_bytes(model))
        return model


def read_artifact(path: Path) -> Artifact:
    """Read an artifact, its manifest and probes.

    EdgeError if one is missing or does not fit, or if the weights are random.
    """
    if not (kind := format_of(path)).backends:
        raise EdgeError(
            f"{path}: is a {kind.noun}, which runs on Apple's systems alone; docs/phone.md says how"
            " to check it there",
            EXIT_MISSING,
        )
    if not path.is_file():
        raise EdgeError(f"{path}: not found. Create it with: {format_of(path).make}")
    manifest = read_manifest(path)
    _refuse_other(path, manifest, sha256_file(path))
    probes = read_bytes(probes_path(path), drift.MAX_PROBES_BYTES)
    if sha256_bytes(probes) != manifest.probes_sha256:
        raise EdgeError(
            f"{probes_path(path)}: are not the probes of {path.name}, but damaged or of another"
            f" export. Create {path.name} again with: {_make_command(path, manifest)}"
        )
    if manifest.random_weights:
        raise EdgeError(
            f"{path}: has random weights, for tests. Create one with trained ones with:"
            " python -m export.onnx"
        )
    return Artifact(path, manifest, probes, _read_parts(path, manifest))


def _refuse_other(path: Path, manifest: Manifest, sha256: str) -> None:
    if sha256 != manifest.sha256:
        raise EdgeError(
            f"{path}: is not the file that its manifest describes, one of the two was damaged or"
            f" replaced. Create it again with: {_make_command(path, manifest)}"
        )


def _read_parts(path: Path, manifest: Manifest) -> dict[str, bytes]:
    parts = {}
    for name, sha256 in dict(manifest.flags.get("parts", {})).items():
        part = path.with_name(Path(name).name)
        parts[name] = read_bytes(part, MAX_ARTIFACT_BYTES)
        if sha256_bytes(parts[name]) != sha256:
            raise EdgeError(
                f"{part}: does not belong to {path.name}, as its manifest says, or was damaged."
                f" Create both again with: {_make_command(path, manifest)}"
            )
    return parts


def write_artifact(
    path: Path,
    content: bytes,
    manifest: Manifest,
    *,
    probes: bytes | None = None,
    parts: Mapping[str, bytes] | None = None,
) -> None:
    """Write an artifact's file and its manifest, and if given its model's probes and more files.

    `parts` are the content of files beside it, by name. All are written first and then renamed, the
    manifest last: killed in between, it leaves a manifest whose hashes fit no file, which nothing
    opens. Raises EdgeError if one cannot be written; then all stay as they were.
    """
    files = {path.with_name(name): part for name, part in (parts or {}).items()} | {path: content}
    if probes is not None:
        files[probes_path(path)] = probes
        if sha256_bytes(probes) != manifest.probes_sha256:
            raise ValueError(f"{probes_path(path)}: the manifest is of other probes")
    if sha256_bytes(content) != manifest.sha256:
        raise ValueError(f"{path}: the manifest is of another file")
    files = {manifest_path(path): encode_manifest(manifest)} | files
    with contextlib.ExitStack() as stack:  # what it opens first it renames last
        for target, data in files.items():
            stack.enter_context(writing(target)).write_bytes(data)


def _make_command(path: Path, manifest: Manifest) -> str:
    return make_command(path, manifest.model, manifest.precision)


def make_command(path: Path, model: str, precision: str) -> str:
    """The command that creates an artifact: smaller ones are made from fp32.onnx."""
    if (kind := format_of(path)) is not ONNX:
        source = probes_path(path).with_name(f"{path.stem}.onnx")
        return f"{kind.make} --artifact {source if source.is_file() else source.parent}"
    if precision == "fp32":
        return f"python -m export.onnx --model {model}"
    return f"python -m quantize.{precision} --artifact {path.with_name('fp32.onnx')}"
