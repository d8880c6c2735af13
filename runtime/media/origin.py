"""What a result was made of, in its own metadata: so nothing that is no older result is replaced.

The tag is a digest of the source's path: it gives no name away, and it survives that the source is
edited, but not that it is moved.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from runtime.atomic import sha256_bytes
from runtime.errors import EdgeError

PREFIX = "aminet-edge, made of "
PATTERN = re.compile(rb"aminet-edge, made of ([0-9a-f]{16})")
ARCHIVE = re.compile(PATTERN.pattern + rb" failed=")  # its images have tags of their own
HEAD_BYTES = TAIL_BYTES = 1 << 16  # where PNG and JPEG, WebP, MP4 and parquet have their metadata


def origin_of(source: str | Path) -> str:
    """The tag of a result of this source, a path or a path and what is inside of it."""
    return PREFIX + sha256_bytes(os.fsencode(os.path.realpath(source)))[:16]


def read_origin(path: Path) -> str | None:
    """The tag of a file; None if it has none."""
    try:
        data = read_ends(path)
    except OSError:
        return None
    found = ARCHIVE.search(data) or PATTERN.search(data)
    return PREFIX + found.group(1).decode() if found else None


def read_ends(path: Path) -> bytes:
    """The beginning and the end of a file."""
    with path.open("rb") as file:
        data = file.read(HEAD_BYTES)
        size = os.fstat(file.fileno()).st_size
        if size > HEAD_BYTES:
            file.seek(max(HEAD_BYTES, size - TAIL_BYTES))
            data += file.read(TAIL_BYTES)
    return data


def refuse_taken(target: Path, origin: str) -> None:
    """Raise EdgeError if there is a file at `target` that is no older result of this source."""
    if not os.path.lexists(target):
        return
    there = read_origin(target)
    if there == origin:
        return
    what = "the result of another input" if there else "a file, and no result of this input"
    raise EdgeError(f"{target}: is already {what}; give another --out, or --overwrite")
