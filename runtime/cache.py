"""What is remembered between two starts, in the user's cache folder.

A record that is missing, damaged or of another key is no record: whoever asked does the work again.
It guards against damage, not against someone who can write there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.atomic import open_ordinary, read_bytes, sha256_bytes, sha256_of, write_bytes
from runtime.errors import EdgeError

MAX_RECORD_BYTES = 1 << 16
KEPT_FILES = 8  # the oldest go when there are more


def cache_folder() -> Path | None:
    """$XDG_CACHE_HOME/aminet-edge, else ~/.cache/aminet-edge; None where there is no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # a relative one is to be ignored, says the XDG specification
        return Path(base, "aminet-edge")
    try:
        return Path.home() / ".cache" / "aminet-edge"
    except RuntimeError:
        return None


def is_writable() -> bool:
    """Whether the cache folder, or the nearest one above it that exists, can be written in."""
    folder = cache_folder()
    if folder is None:
        return False
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)


def records() -> list[tuple[dict[str, str], dict[str, Any]]]:
    """All keys with their records, as they are remembered."""
    folder = cache_folder()
    found = []
    for path in sorted((folder / "verdicts").glob("[!.]*.json")) if folder else []:
        try:
            key = dict(json.loads(read_bytes(path, MAX_RECORD_BYTES))["key"])
        except (EdgeError, ValueError, TypeError, KeyError, RecursionError):
            continue
        if (record := recall(key)) is not None:
            found.append((key, record))
    return found


def forget() -> int:
    """Remove all that is remembered; how many records there were."""
    folder = cache_folder()
    removed = 0
    for path in (folder / "verdicts").glob("[!.]*.json") if folder else []:
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
    return removed


def recall(key: dict[str, str]) -> dict[str, Any] | None:
    """The record that was remembered under exactly this key, or None."""
    path = _record_path(key)
    if path is None:
        return None
    try:
        stored = json.loads(read_bytes(path, MAX_RECORD_BYTES))
        if stored["digest"] == _digest(key, stored["record"]) and stored["key"] == key:
            return dict(stored["record"])
    except (EdgeError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return None


def remember(key: dict[str, str], record: dict[str, Any]) -> None:
    """Keep a record under a key; where nothing can be written, nothing is kept."""
    path = _record_path(key)
    if path is None:
        return
    stored = {"key": key, "record": record, "digest": _digest(key, record)}
    try:
        write_bytes(path, json.dumps(stored, indent=2, sort_keys=True).encode())
    except EdgeError:
        return


@dataclass(frozen=True)
class KeptFile:
    """A file that was kept, at a `place` where it can be opened, and its SHA-256."""

    place: str
    sha256: str


@contextlib.contextmanager
def recalled_file(key: dict[str, str]) -> Iterator[KeptFile | None]:
    """Yield what was kept under exactly this key, if it still is what it was; else None.

    Its place names the very file whose content was compared, also if another process replaces or
    removes it meanwhile; where the system has no such names, it is its path.
    """
    path, record = _file_path(key), recall(key)
    with contextlib.ExitStack() as stack:
        kept = None
        if path is not None and record is not None:
            with contextlib.suppress(EdgeError, OSError):
                file = stack.enter_context(open_ordinary(path))
                if (sha256 := sha256_of(file)) == record.get("sha256"):
                    held = f"/proc/self/fd/{file.fileno()}"
                    kept = KeptFile(held if os.path.exists(held) else str(path), sha256)
        yield kept


def remember_file(key: dict[str, str], data: bytes) -> None:
    """Keep bytes under a key; where nothing can be written, nothing is kept."""
    path = _file_path(key)
    if path is None:
        return
    try:
        write_bytes(path, data)
        _drop_oldest(path.parent)
    except (EdgeError, OSError):
        return
    remember(key, {"sha256": sha256_bytes(data)})


def _drop_oldest(folder: Path) -> None:
    kept = sorted(folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[KEPT_FILES:]:
        path.unlink(missing_ok=True)


def _file_path(key: dict[str, str]) -> Path | None:
    folder = cache_folder()
    return folder / "files" / f"{_digest(key)[:32]}.bin" if folder else None


def _record_path(key: dict[str, str]) -> Path | None:
    folder = cache_folder()
    return folder / "verdicts" / f"{_digest(key)[:32]}.json" if folder else None


def _digest(*parts: Any) -> str:
    return sha256_bytes(json.dumps(parts, sort_keys=True).encode())
