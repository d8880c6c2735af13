"""Packages of npm without Node: an exact version, checked by its integrity, kept in the cache."""

import base64
import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.atomic import read_bytes, write_bytes
from runtime.cache import cache_folder
from runtime.errors import EXIT_MISSING, EdgeError

TIMEOUT_S = 60
MAX_TARBALL_BYTES = 256 << 20
MAX_UNPACKED_BYTES = 512 << 20


@dataclass(frozen=True)
class Package:
    """A version of a package, and its integrity as npm writes it: sha512- and base64."""

    name: str
    version: str
    integrity: str

    @property
    def folder(self) -> str:
        """A name for a folder of its files."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"

    @property
    def file_name(self) -> str:
        return f"{self.name.rpartition('/')[2]}-{self.version}.tgz"

    def is_in(self, tarball: bytes) -> bool:
        """Whether these are the package's bytes."""
        digest = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
        return self.integrity == f"sha512-{digest}"


def registry(environment: Mapping[str, str] = os.environ) -> str:
    """The registry that npm is configured for: the environment, ~/.npmrc, else what npm says.

    Raises EdgeError where nothing names one.
    """
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if url := environment.get(name):
            return url.rstrip("/")
    try:
        lines = Path.home().joinpath(".npmrc").read_text().splitlines()
    except (OSError, RuntimeError, UnicodeDecodeError):
        lines = []
    for line in lines:
        name, _, url = line.partition("=")
        if name.strip() == "registry" and url.strip():
            return url.strip().strip("\"'").rstrip("/")
    return _ask_npm()


def _ask_npm() -> str:
    """npm's own default, where npm is installed; it is only asked, not used."""
    if npm := shutil.which("npm"):
        asked = [npm, "config", "get", "registry"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(asked, capture_output=True, text=True, timeout=TIMEOUT_S)
            if done.returncode == 0 and done.stdout.strip().startswith("http"):
                return done.stdout.strip().rstrip("/")
    raise EdgeError(
        "no npm registry is configured; set npm_config_registry to its address, or give the"
        " package: --npm-tarball F",
        EXIT_MISSING,
    )


def fetch(package: Package, tarballs: Sequence[str | Path] = ()) -> bytes:
    """The package's tarball: one of the files, else the cached one, or downloaded and then cached.

    Raises EdgeError if it cannot be had, or if it is another one.
    """
    for number, tarball in enumerate(tarballs, 1):
        data = read_bytes(tarball, MAX_TARBALL_BYTES)
        if package.is_in(data) or number == len(tarballs):
            return _checked(package, data, str(tarball))
    folder = cache_folder()
    kept = folder / "npm" / package.file_name if folder else None
    if kept and kept.is_file() and package.is_in(data := read_bytes(kept, MAX_TARBALL_BYTES)):
        return data
    url = f"{registry()}/{package.name}/-/{package.file_name}"
    data = _checked(package, _download(package, url), url)
    if kept:
        _keep(kept, data)
    return data


def read_members(tarball: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """The named files of a package, read from its tarball; EdgeError if one is missing."""
    members: dict[str, bytes] = {}
    unpacked_bytes = 0
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        for member in archive:
            name = member.name.removeprefix("package/")
            unpacked_bytes += member.size
            if unpacked_bytes > MAX_UNPACKED_BYTES:
                raise EdgeError(f"the package is larger than {MAX_UNPACKED_BYTES:,} bytes unpacked")
            if name in names and member.isreg() and (stream := archive.extractfile(member)):
                members[name] = stream.read()
    if missing := [name for name in names if name not in members]:
        raise EdgeError(f"the package holds no {missing[0]}, expected {', '.join(names)}")
    return members


def _download(package: Package, url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise EdgeError(f"{url}: is no registry, expected https://; set npm_config_registry")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            data: bytes = response.read(MAX_TARBALL_BYTES + 1)
            return data
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise EdgeError(
            f"{url}: cannot be downloaded ({reason}); check the network, set npm_config_registry,"
            f" or give {package.file_name} as --npm-tarball"
        ) from error


def _checked(package: Package, data: bytes, source: str) -> bytes:
    if not package.is_in(data):
        raise EdgeError(
            f"{source}: is not {package.name} {package.version}, its SHA-512 is another;"
            " nothing of it was used"
        )
    return data


def _keep(path: Path, data: bytes) -> None:
    """A cache that cannot be written is none: the next run downloads again."""
    try:
        write_bytes(path, data)
    except EdgeError:
        return
