"""The files of an artifact as a zip takes them, each as its manifest says."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime import drift
from runtime.artifact import MAX_ARTIFACT_BYTES, read_artifact
from runtime.atomic import read_bytes, sha256_bytes
from runtime.drift import Limit, decode_probes
from runtime.errors import EdgeError
from runtime.formats import format_of
from runtime.image import SR_SIDE
from runtime.manifest import Manifest, manifest_path, probes_path, read_manifest

PROBES_MAGIC = b"AMNPROB1"


@dataclass(frozen=True)
class PackedArtifact:
    """An artifact: `files` by their names beside it, its own among them, and its model's probes."""

    path: Path
    manifest: Manifest
    files: Mapping[str, bytes]
    probes: bytes

    @property
    def bytes(self) -> int:
        """Of all its files, without the manifest."""
        note = f"{self.path.name}.json"
        return sum(len(content) for name, content in self.files.items() if name != note)


def read_packed(path: Path) -> PackedArtifact:
    """Read an artifact with its manifest; EdgeError if one is missing or does not fit."""
    if not path.exists():
        raise EdgeError(f"{path}: not found. Create it with: {format_of(path).make}")
    note = {f"{path.name}.json": read_bytes(manifest_path(path), MAX_ARTIFACT_BYTES)}
    if not path.is_dir():
        artifact = read_artifact(path)
        files = {path.name: artifact.model, **artifact.parts, **note}
        return PackedArtifact(path, artifact.manifest, files, artifact.probes)
    manifest = read_manifest(path)
    inside = {
        each.relative_to(path).as_posix(): read_bytes(each, MAX_ARTIFACT_BYTES)
        for each in sorted(path.rglob("*"))
        if each.is_file()
    }
    probes = read_bytes(probes_path(path), drift.MAX_PROBES_BYTES)
    sound = sha256_bytes(folder_listing(inside)) == manifest.sha256
    if not sound or sha256_bytes(probes) != manifest.probes_sha256:
        raise EdgeError(
            f"{path}: is not the package, or its probes are not those, that its manifest describes;"
            f" make it again: {format_of(path).make}"
        )
    files = {f"{path.name}/{name}": content for name, content in inside.items()}
    return PackedArtifact(path, manifest, {**files, **note}, probes)


def folder_listing(files: Mapping[str, bytes]) -> bytes:
    """A line for each file, as sha256sum prints it: its SHA-256 is that of the whole folder."""
    return "".join(f"{sha256_bytes(files[name])}  {name}\n" for name in sorted(files)).encode()


def encode_probes(probes: bytes, limit: Limit) -> bytes:
    """The probes of a probes.npz with the limits that they must reach, for code without NumPy.

    AMNPROB1, then little-endian int32 count, faces, lr side, sr side, float32 limits in dB of faces
    and of stress probes, then all lr and all sr images, RGB.
    """
    read = decode_probes(probes, "the probes")
    count, side = read.lr.shape[:2]
    sizes = struct.pack("<4i", count, read.faces, side, SR_SIDE)
    limits = struct.pack("<2f", limit.fidelity_db, limit.extremes_fidelity_db)
    return PROBES_MAGIC + sizes + limits + read.lr.tobytes() + read.sr.tobytes()
