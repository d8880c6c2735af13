"""Files that are whole or not there: written beside their name, then renamed; and their digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import FULL_DISK, EdgeError


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix, that becomes `path` in the end.

    Missing folders are made. If the block fails, or the process is killed, `path` stays as it was
    (a killed one leaves its hidden temporary file). Raises EdgeError when the disk is full or the
    place cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _refuse_special(target)
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None:  # not the system's: Pillow and others subclass OSError
            raise
        raise _cannot_write(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace `path` by `data`, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def read_bytes(path: str | Path, limit_bytes: int) -> bytes:
    """The content of an ordinary file of at most `limit_bytes`; anything else is an EdgeError."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise EdgeError(f"{path}: is a folder, expected a file")
            if not stat.S_ISREG(status.st_mode):
                raise EdgeError(f"{path}: is not an ordinary file; copy its content to one")
            if status.st_size > limit_bytes:
                raise EdgeError(
                    f"{path}: has {status.st_size:,} bytes, expected at most {limit_bytes:,}"
                )
            return file.read(limit_bytes)
    except FileNotFoundError as error:
        raise EdgeError(f"{path}: is not there; check the path") from error
    except IsADirectoryError as error:
        raise EdgeError(f"{path}: is a folder, expected a file") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise EdgeError(f"{path}: cannot be read: {_reason(error)}") from error


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of `data`, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise EdgeError(f"{path}: cannot be read: {_reason(error)}") from error
    return digest.hexdigest()


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
        return EdgeError(f"{target}: the disk is full; make room and run it again")
    return EdgeError(f"{target}: cannot be written: {_reason(error)}; name another place")


def _reason(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return (strerror or str(error)).lower()
