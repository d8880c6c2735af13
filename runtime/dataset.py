"""Data sets of faces: a tar, a folder or a image, read where it lies and never unpacked."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from runtime.errors import EdgeError
from runtime.image import MAX_BYTES, SR_SIDE, Pixels, decode_image, read_image
from runtime.image_formats import IMAGE_SUFFIXES

Read = Callable[[], Pixels]


@dataclass(frozen=True)
class Face:
    """One image (H, W, 3) and where it came from, 'folder/face.png' or 'faces.tar/face.png'."""

    name: str
    pixels: Pixels


def iter_faces(
    sources: Sequence[str | Path], on_broken: Callable[[EdgeError], None] | None = None
) -> Iterator[Face]:
    """Read the images of each source in turn: tars in their own order, folders sorted.

    Files without a image's suffix and hidden ones are passed over. Raises EdgeError for a source
    that is missing, damaged or without a image, and for a image that cannot be read, unless
    `on_broken` takes that error: then the next one follows.
    """
    for source in map(Path, sources):
        if source.is_dir():
            images = _folder_images(source)
        elif is_tar_name(source):
            images = _tar_images(source)
        else:
            images = iter([(str(source), partial(read_image, source))])
        for name, read in images:
            try:
                pixels = read()
            except EdgeError as error:
                if on_broken is None:
                    raise
                on_broken(error)
            else:
                yield Face(name, pixels)


def load_faces(
    sources: Sequence[str | Path], side: int = SR_SIDE, limit: int | None = None
) -> Pixels:
    """Read up to `limit` faces of `side` x `side` as one uint8 array (N, side, side, 3).

    A face of another size, or one that cannot be read, raises EdgeError with its name.
    """
    buffer = bytearray()  # grows in place: a list of arrays would hold everything twice
    for face in islice(iter_faces(sources), limit):
        height, width = face.pixels.shape[:2]
        if (height, width) != (side, side):
            raise EdgeError(
                f"{face.name}: is {width}x{height}, expected a face of {side}x{side};"
                " leave it out or resize it; python -m runtime.align makes faces of photos"
            )
        buffer += face.pixels.tobytes()
    return np.frombuffer(buffer, np.uint8).reshape(-1, side, side, 3)


def list_images(folder: str | Path) -> list[Path]:
    """The images in a folder and the folders below it, sorted; hidden ones are passed over."""
    return list_files(folder, is_image_name)


def list_files(folder: str | Path, is_wanted: Callable[[str], bool]) -> list[Path]:
    """The files of some names in a folder and below it, sorted; hidden folders are passed over."""
    return sorted(path for path in iter_files(folder) if is_wanted(path.name))


def iter_files(folder: str | Path) -> Iterator[Path]:
    """All files in a folder, by name, then those of the folders below; hidden ones are left out.

    Only one folder's names are held at a time.
    """
    for parent, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def is_image_name(name: str) -> bool:
    """Whether a file is taken for an image: its suffix says so, and it is not hidden."""
    name = os.path.basename(name)  # a folder may hold a million: a Path of each takes longer
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES and not name.startswith(".")


def is_tar_name(path: Path) -> bool:
    """Whether a path is taken for a tar, by its name."""
    return path.suffix.lower() == ".tar"


def is_parquet_name(path: Path) -> bool:
    """Whether a path is taken for a parquet file, by its name."""
    return path.suffix.lower() == ".parquet"


def _folder_images(folder: Path) -> Iterator[tuple[str, Read]]:
    images = list_images(folder)
    if not images:
        raise _no_image(folder)
    for path in images:
        yield str(path), partial(read_image, path)


def iter_tar(tar: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The files in a tar, by name, and how to read each before the next is asked for.

    Raises EdgeError for a tar that is missing, compressed or damaged, once the whole part is done.
    """
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in iter(archive.next, None):
                archive.members.clear()  # type: ignore[attr-defined]  # it would hold them all
                if member.isreg():
                    yield member.name, partial(_member_bytes, archive, member, tar)
            _refuse_unfinished(tar, archive.offset)
    except FileNotFoundError as error:
        raise EdgeError(f"{tar}: not found. Check the path") from error
    except (tarfile.TarError, OSError, EOFError) as error:
        raise EdgeError(f"{tar}: is not a whole, plain tar ({error}); get it again") from error


def _refuse_unfinished(tar: Path, end: int) -> None:
    """What is no header, or only part of one, is the end for tarfile, and no error."""
    with open(tar, "rb") as file:
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)) or end > os.path.getsize(tar):
            raise tarfile.ReadError(f"damaged or cut off at byte {end:,}")


def _tar_images(tar: Path) -> Iterator[tuple[str, Read]]:
    found = False
    for member, read in iter_tar(tar):
        if is_image_name(member):
            found = True
            name = f"{tar}/{member}"
            yield name, partial(decode_image, read(), name)
    if not found:
        raise _no_image(tar)


def _member_bytes(archive: tarfile.TarFile, member: tarfile.TarInfo, tar: Path) -> bytes:
    if member.size > MAX_BYTES:
        raise EdgeError(
            f"{tar}/{member.name}: has {member.size:,} bytes, expected at most {MAX_BYTES:,}"
        )
    try:
        stream = archive.extractfile(member)
        return stream.read() if stream else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise EdgeError(f"{tar}: is not a whole, plain tar ({error}); get it again") from error


def _no_image(source: Path) -> EdgeError:
    return EdgeError(f"{source}: holds no image, expected some of {' '.join(IMAGE_SUFFIXES)}")


def _refuse_folder(error: OSError) -> None:
    reason = (error.strerror or str(error)).lower()
    raise EdgeError(f"{error.filename}: cannot be listed: {reason}; check the path and its rights")
