"""What is remembered between two starts, in the user's cache folder.

A record that is missing, damaged or of another key is no record: whoever asked does the work again.
It guards against damage, not against someone who can write there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from runtime.errors import EdgeError
from runtime.files import read_bytes, sha256_bytes, write_bytes

MAX_RECORD_BYTES = 1 << 16


def cache_folder() -> Path | None:
    """$XDG_CACHE_HOME/aminet-edge, else ~/.cache/aminet-edge; None where there is no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # a relative one is to be ignored, says the XDG specification
        return Path(base, "aminet-edge")
    try:
        return Path.home() / ".cache" / "aminet-edge"
    except RuntimeError:
        return None


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


def _record_path(key: dict[str, str]) -> Path | None:
    folder = cache_folder()
    return folder / "verdicts" / f"{_digest(key)[:32]}.json" if folder else None


def _digest(*parts: Any) -> str:
    return sha256_bytes(json.dumps(parts, sort_keys=True).encode())
