"""Atomic files: written beside their name, then renamed; and their digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from runtime.errors import FULL_DISK, EdgeError, FullDiskError

if sys.platform != "win32":  # there leftovers stay
    import fcntl

LEFTOVER = re.compile(r"\..*\.[0-9a-f]{8}\.part(\.[^.]*)?")
LEFTOVER_FOLDER = re.compile(r"\..*\.[0-9a-f]{8}\.part-folder")
NEW_FILE = os.O_CREAT | os.O_RDWR | getattr(os, "O_BINARY", 0)  # Windows alone knows text files
BLOCK_BYTES = 1 << 18  # that are hashed at once
ASKED, ASK_AGAIN_S = 10, 0.02  # who looks for leftovers holds a lock for a moment
_CLEARED: set[Path] = set()  # folders that this process has looked through


@contextlib.contextmanager
def writing(path: str | Path, *, alone: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix, that becomes `path` in the end.

    Missing folders are made. If the block fails, or the process is killed, `path` stays as it was;
    what a killed one leaves, a hidden temporary file, goes when the next process writes into the
    folder. Raises EdgeError when the disk is full (FullDiskError), the place cannot be written, or,
    for one who wants to be `alone`, while another process writes `path`.
    """
    with _replacing(Path(path), alone=alone) as (temporary, _):
        yield temporary
        _flush_to_disk(temporary)


@contextlib.contextmanager
def _replacing(target: Path, *, alone: bool = False) -> Iterator[tuple[Path, int]]:
    """As writing, with the open file as well; the block flushes it to the disk."""
    with contextlib.ExitStack() as stack:
        try:
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
            _refuse_special(target)
            _remove_leftovers(target.parent)
            temporary, handle = stack.enter_context(_held_temporary(target, alone))
            yield temporary, handle
            os.replace(temporary, target)
        except OSError as error:
            if error.errno is None:  # not the system's: Pillow and others subclass OSError
                raise
            raise _cannot_write(target, error) from error


@contextlib.contextmanager
def writing_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` in the end.

    A folder of that name is replaced as a whole. If the block fails it stays as it was, and what a
    killed process leaves goes as with `writing`.
    """
    target = Path(path)
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not target.is_dir():
                raise EdgeError(f"{target}: is a file, expected the name of a folder to write")
            _remove_leftovers(target.parent)
            temporary = _temporary_folder(target)
            temporary.mkdir()
            stack.callback(_remove_folder, temporary)
            stack.enter_context(_locked(temporary))
            yield temporary
            _swap(temporary, target)
        except OSError as error:
            raise _cannot_write(target, error) from error


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace `path` by `data`, whole or not at all."""
    with _replacing(Path(path)) as (_, handle):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)


def read_bytes(path: str | Path, limit_bytes: int) -> bytes:
    """The content of an ordinary file of at most `limit_bytes`; anything else is an EdgeError."""
    try:
        with open_ordinary(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit_bytes:
                raise EdgeError(f"{path}: has {size:,} bytes, expected at most {limit_bytes:,}")
            return file.readall()
    except FileNotFoundError as error:
        raise EdgeError(f"{path}: not found; check the path") from error
    except IsADirectoryError as error:
        raise EdgeError(f"{path}: is a folder, expected a file") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise EdgeError(f"{path}: cannot be read: {_reason(error)}") from error


@contextlib.contextmanager
def open_ordinary(path: str | Path) -> Iterator[FileIO]:
    """Open a file for reading without a buffer; EdgeError if it is a folder, pipe or device."""
    with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise EdgeError(f"{path}: is a folder, expected a file")
        if not stat.S_ISREG(mode):
            raise EdgeError(f"{path}: is not an ordinary file; copy its content to one")
        yield file


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of `data`, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    try:
        with open(path, "rb", buffering=0) as file:
            return sha256_of(file)
    except OSError as error:
        raise EdgeError(f"{path}: cannot be read: {_reason(error)}") from error


def sha256_of(file: FileIO) -> str:
    """The SHA-256 of the rest of an open file."""
    digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK_BYTES))
    while size := file.readinto(block):
        digest.update(block[:size])
    return digest.hexdigest()


@contextlib.contextmanager
def _held_temporary(target: Path, alone: bool) -> Iterator[tuple[Path, int]]:
    """An empty file beside `target`, locked as long as it is written, and removed if it is left."""
    path, handle = (_open_alone(target) if alone else None) or _open_new(target)
    try:
        yield path, handle
    finally:
        with contextlib.suppress(OSError):
            if _is_at(path, handle):
                path.unlink()
        os.close(handle)


def _open_new(target: Path) -> tuple[Path, int]:
    while True:
        path = _temporary(target, os.urandom(4).hex())
        handle = os.open(path, NEW_FILE | os.O_EXCL, 0o666)
        if _lock(handle) is not False and _is_at(path, handle):
            return path, handle
        os.close(handle)


def _open_alone(target: Path) -> tuple[Path, int] | None:
    """The one temporary file that all who want to be alone share; None where there are no locks."""
    path = _temporary(target, sha256_bytes(os.fsencode(target.name))[:8])
    for _ in range(ASKED):
        handle = os.open(path, NEW_FILE, 0o666)
        locked = _lock(handle)
        if locked and _is_at(path, handle):
            os.ftruncate(handle, 0)
            return path, handle
        if locked is None:
            path.unlink(missing_ok=True)
        os.close(handle)
        if locked is None:
            return None
        time.sleep(ASK_AGAIN_S)
    raise EdgeError(
        f"{target}: is being written by another run; let it end, or give another --out or --shard"
    )


def _temporary(target: Path, digits: str) -> Path:
    return target.with_name(f".{target.stem}.{digits}.part{target.suffix}")


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file still has this name: it was not renamed, nor taken for a leftover."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False


def _temporary_folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.urandom(4).hex()}.part-folder")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, so that it is not taken for a leftover."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _swap(temporary: Path, target: Path) -> None:
    """Put a folder in the place of another, which goes; back again if that fails."""
    if not target.exists():
        os.rename(temporary, target)
        return
    old = _temporary_folder(target)
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(old, target)
        raise
    _remove_folder(old)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written; once for each folder is enough.

    The system gives a dead process's locks back, so what can be locked is left over.
    """
    folder = folder.absolute()
    if folder in _CLEARED:
        return
    _CLEARED.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            pattern = LEFTOVER_FOLDER if is_folder else LEFTOVER
            if pattern.fullmatch(entry.name) and not entry.is_symlink():
                _remove_if_left(entry.path, is_folder)


def _remove_if_left(path: str, is_folder: bool) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            if not _lock(handle):
                return
            if is_folder:
                _remove_folder(path)
            else:
                os.unlink(path)
        finally:
            os.close(handle)


def _remove_folder(path: str | Path) -> None:
    import shutil  # brings compressors along, and most starts remove no folder

    shutil.rmtree(path, ignore_errors=True)


def _lock(handle: int) -> bool | None:
    """Lock an open file until it is closed: whether it worked; None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def _open_without_waiting(path: str, flags: int) -> int:
    """Open for reading; a named pipe without a writer would otherwise wait for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _refuse_special(target: Path) -> None:
    """Renaming over a device or a folder would destroy it or fail late."""
    if target.is_dir():
        raise EdgeError(f"{target}: is a folder, expected the name of a file to write")
    if target.exists() and not target.is_file():
        raise EdgeError(f"{target}: is not an ordinary file; name another output")


def _flush_to_disk(path: Path) -> None:
    """After this a crash of the machine cannot leave the new name with half of the content."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _cannot_write(target: Path, error: OSError) -> EdgeError:
    if error.errno in FULL_DISK:
        return FullDiskError(f"{target}: the disk is full; make room and run it again")
    return EdgeError(f"{target}: cannot be written: {_reason(error)}; name another place")


def _reason(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return (strerror or str(error)).lower()
