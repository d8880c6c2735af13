"""Archives: files that hold many images, a tar or a parquet file, read and written as streams."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from runtime.dataset import is_parquet_name
from runtime.media.outputs import TarWriter, writing_tar

if TYPE_CHECKING:
    from runtime.media.parquet import TableWriter

Archive: TypeAlias = "TarWriter | TableWriter"


def writing_archive(
    path: Path, origin: str, like: Path | None = None, image_column: str | None = None
) -> AbstractContextManager[Archive]:
    """Yield the tar or parquet file that becomes `path` in the end, with the columns of `like`.

    EdgeError if that cannot be read, or while another process writes `path`.
    """
    if not is_parquet_name(path):
        return writing_tar(path, origin)
    from runtime.media.parquet import read_form, writing_table

    return writing_table(path, origin, read_form(like, image_column) if like else None)
