"""Where results go: a file each, the members of a tar, rows of a table, or standard output."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from runtime.atomic import write_bytes, writing
from runtime.errors import EdgeError
from runtime.image import RowSource, check_output, encode_image, write_image
from runtime.media.names import result_name
from runtime.media.origin import read_ends, read_origin, refuse_taken

if TYPE_CHECKING:
    from runtime.media.jobs import FaceResult, Job

FAILED = "failed="  # in an archive's comment: how many images could not be made
DIGITS = 8
HEAD_BYTES = 4096


@dataclass(frozen=True)
class FileOutput:
    """A result that is a file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def face(self, index: int) -> FileOutput:
        """One face of a photo: `x_sr.png` gives `x_face0_sr.png`."""
        return FileOutput(self.path.with_name(_face_name(self.path.name, index)))

    def check(self, height: int, width: int) -> None:
        """Raise EdgeError if an image of this size cannot be written there."""
        check_output(self.path, height, width)

    def claim(self, origin: str, overwrite: bool, since: float) -> None:
        """Raise EdgeError if what is there is no older result of the same source.

        With `overwrite` it is, unless another source's result was written since then, in seconds.
        """
        if not overwrite or (_written(self.path) >= since and read_origin(self.path)):
            refuse_taken(self.path, origin)

    def write(self, image: RowSource, origin: str) -> None:
        write_image(self.path, image, origin)

    def encode(self, image: RowSource, origin: str) -> bytes:
        """The file's content, which `store` writes."""
        check_output(self.path, *image.shape[:2])
        return b"".join(encode_image(image, self.path.suffix, origin))

    def store(self, data: bytes) -> None:
        write_bytes(self.path, data)


class TarWriter:
    """A tar that is being written, by any number of threads; see writing_tar."""

    def __init__(self, path: Path, archive: tarfile.TarFile) -> None:
        self.path = path
        self.failed = self.members = 0
        self._archive = archive
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def claim(self, name: str) -> None:
        with self._lock:
            if name in self._names:
                raise EdgeError(
                    f"{self.path}/{name}: is already the result of another input; give it a name of"
                    " its own"
                )
            self._names.add(name)

    def add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        with self._lock:
            self.members += 1
            self._archive.addfile(member, io.BytesIO(data))
            self._archive.members.clear()  # type: ignore[attr-defined]  # it would hold them all

    def output(self, name: str, cells: object = None) -> TarOutput:
        """Where an image goes; a tar keeps nothing of a table's `cells`."""
        return TarOutput(self, result_name(name))

    def settle(self, job: Job, result: FaceResult) -> None:
        """Count a job that is done."""
        self.failed += result.error is not None


@dataclass(frozen=True)
class TarOutput:
    """A result that is a member of a tar."""

    archive: TarWriter
    member: str

    @property
    def name(self) -> str:
        return f"{self.archive.path}/{self.member}"

    def face(self, index: int) -> TarOutput:
        path = PurePosixPath(self.member)
        return TarOutput(self.archive, str(path.with_name(_face_name(path.name, index))))

    def check(self, height: int, width: int) -> None:
        check_output(self.member, height, width)

    def claim(self, origin: str, overwrite: bool, since: float) -> None:
        self.archive.claim(self.member)

    def write(self, image: RowSource, origin: str) -> None:
        suffix = PurePosixPath(self.member).suffix
        self.archive.add(self.member, b"".join(encode_image(image, suffix, origin)))


@dataclass(frozen=True, eq=False)
class RowOutput:
    """A result that is a cell of a table; `made` has it once it is there."""

    name: str
    label: str
    cells: object = None
    made: list[bytes] = field(default_factory=list)

    def face(self, index: int) -> RowOutput:
        raise EdgeError(f"{self.name}: --faces-only gives several images; give --out, a tar")

    def check(self, height: int, width: int) -> None:
        check_output("-.png", height, width)

    def claim(self, origin: str, overwrite: bool, since: float) -> None:
        pass

    def write(self, image: RowSource, origin: str) -> None:
        self.made.append(b"".join(encode_image(image, ".png", origin)))


@dataclass(frozen=True)
class StandardOutput:
    """A result that goes to standard output, as PNG."""

    name: str = "-"

    def face(self, index: int) -> StandardOutput:
        raise EdgeError("--faces-only writes several files; give --out, a folder")

    def check(self, height: int, width: int) -> None:
        check_output("-.png", height, width)

    def claim(self, origin: str, overwrite: bool, since: float) -> None:
        pass

    def write(self, image: RowSource, origin: str) -> None:
        for part in encode_image(image, ".png", origin):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


Output: TypeAlias = "FileOutput | TarOutput | RowOutput | StandardOutput"


@contextmanager
def writing_tar(path: Path, origin: str) -> Iterator[TarWriter]:
    """Yield the tar that becomes `path` in the end; nothing is written if it has no member.

    Its comment says of what it was made and how many members failed: with any it is made again.
    EdgeError while another process writes it.
    """
    headers = {"comment": failed_comment(origin, 0)}
    with suppress(NothingWrittenError), writing(path, alone=True) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT, pax_headers=headers) as made:
            writer = TarWriter(path, made)
            yield writer
        if not writer.members:
            raise NothingWrittenError
        with temporary.open("r+b") as file:
            file.seek(file.read(HEAD_BYTES).index(FAILED.encode()) + len(FAILED))
            file.write(_digits(writer.failed).encode())


def failed_comment(origin: str, failed: int) -> str:
    """What an archive says of what it was made of, and how many of its images failed."""
    return f"{origin} {FAILED}{_digits(failed)}"


def lacks_some(archive: Path) -> bool:
    """Whether a tar or table that was written here says that some images could not be made."""
    return f"{FAILED}{_digits(0)}".encode() not in read_ends(archive)


class NothingWrittenError(Exception):
    """No image was written into an archive."""


def _digits(count: int) -> str:
    return f"{min(count, 10**DIGITS - 1):0{DIGITS}}"


def _face_name(name: str, index: int) -> str:
    path = PurePosixPath(name)
    return f"{path.stem.removesuffix('_sr')}_face{index}_sr{path.suffix}"


def _written(path: Path) -> float:
    """When, in seconds; never if it is not there."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return float("-inf")
