"""Parquet files in and out: rows with an image and a name, streamed, never held as a whole.

pyarrow is an extra (`pip install 'aminet-edge[scale]'`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.atomic import writing
from runtime.errors import EdgeError, needs
from runtime.image import MAX_BYTES
from runtime.media.jobs import FaceResult, Job
from runtime.media.outputs import NothingWrittenError, RowOutput, failed_comment

# The columns that are taken, the first of these; an image column of any name if it is the only one.
IMAGES = ("image", "img", "png", "jpg", "jpeg", "bytes", "face", "data")
KEYS = ("key", "__key__", "name", "file_name", "filename", "path", "id")
READ_ROWS = 64  # at once
GROUP_BYTES = 8 << 20  # of upscaled images in a row group; some 400 faces
STREAM_BYTES = 1 << 20  # of a column chunk that are read at once


@dataclass(frozen=True)
class Form:
    """The columns of a parquet file: its Arrow `schema`, and which have the images and the keys.

    An image is the file's bytes, or a struct with them in its field `bytes`, as Hugging Face's data
    sets have it. Without a `key` rows are called by their number, and with neither by their source.
    """

    schema: Any
    image: str
    key: str | None = None

    @property
    def in_struct(self) -> bool:
        import pyarrow as pa

        return bool(pa.types.is_struct(self.schema.field(self.image).type))


@dataclass(frozen=True, eq=False)
class Row:
    """One row: its name, its image file or why it has none, and all its cells as a record batch."""

    name: str
    data: bytes | None
    error: str | None
    cells: Any


def read_form(path: Path, image_column: str | None = None) -> Form:
    """Read which columns a parquet file has; EdgeError if it is none, or has no image column."""
    with _opened(path) as file:
        schema = file.schema_arrow
        return Form(schema, _image_column(path, schema, image_column), _key_column(schema))


def iter_rows(path: Path, form: Form) -> Iterator[Row | EdgeError]:
    """The rows of a parquet file in order; an error in the place of what cannot be read of a group.

    Raises EdgeError if nothing can be read.
    """
    import pyarrow as pa

    with _opened(path) as file:
        number = 0
        for group in range(file.num_row_groups):
            start = number
            try:
                for batch in file.iter_batches(READ_ROWS, row_groups=[group], use_threads=False):
                    yield from _rows(batch, path, form, number)
                    number += len(batch)
            except (pa.ArrowException, OSError) as error:
                yield EdgeError(
                    f"{path}: row group {group} is damaged after row {number:,}"
                    f" ({_first_line(error)}); get it again"
                )
            number = start + file.metadata.row_group(group).num_rows


class TableWriter:
    """A parquet file that is being written, in the order in which rows are settled."""

    def __init__(self, path: Path, form: Form, file: Any) -> None:
        self.path = path
        self.failed = self.rows = 0
        self._form = form
        self._file = file
        self._kept: list[RowOutput] = []
        self._bytes = 0

    def output(self, name: str, cells: object = None) -> RowOutput:
        """Where an image goes; `cells` are the other columns of its row."""
        return RowOutput(f"{self.path}/{name}", name, cells)

    def settle(self, job: Job, result: FaceResult) -> None:
        """Add the row of a job that is done."""
        self.failed += result.error is not None
        if isinstance(job.output, RowOutput) and job.output.made:
            self._kept.append(job.output)
            self._bytes += len(job.output.made[0])
            if self._bytes >= GROUP_BYTES:
                self._write_group()

    def end(self, origin: str) -> None:
        """Write what is left, and of what it was made."""
        self._write_group()
        self._file.add_key_value_metadata({"comment": failed_comment(origin, self.failed)})

    def _write_group(self) -> None:
        if not self._kept:
            return
        import pyarrow as pa

        images = [row.made[0] for row in self._kept]
        if self._kept[0].cells is None:
            names = [row.label for row in self._kept]
            table = pa.table([names, images], schema=self._form.schema)
        else:
            table = self._with_images(images)
        self._file.write_table(table)
        self.rows += len(images)
        pa.default_memory_pool().release_unused()
        self._kept, self._bytes = [], 0

    def _with_images(self, images: list[bytes]) -> Any:
        """The rows that were read, with these in the place of their images."""
        import pyarrow as pa

        form = self._form
        table = pa.Table.from_batches([row.cells for row in self._kept]).combine_chunks()
        index = form.schema.get_field_index(form.image)
        field = form.schema.field(index)
        column: Any = pa.array(images, _bytes_type(field.type))
        if form.in_struct:
            old = table.column(index).chunk(0)
            parts = [
                column if part.name == "bytes" else old.field(part.name) for part in field.type
            ]
            column = pa.StructArray.from_arrays(parts, fields=list(field.type))
        return table.set_column(index, field, column)


@contextmanager
def writing_table(path: Path, origin: str, form: Form | None = None) -> Iterator[TableWriter]:
    """Yield the parquet file that becomes `path` in the end; nothing is written without a row.

    It has the columns of `form`, or without one `name` and `image`. Its metadata says of what it
    was made and how many rows failed: with any it is made again. EdgeError while another process
    writes it.
    """
    with needs("scale"):
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    if form is None:
        form = Form(pa.schema({"name": pa.string(), "image": pa.binary()}), "image", "name")
    others = [name for name in form.schema.names if name != form.image]
    with suppress(NothingWrittenError), writing(path, alone=True) as temporary:
        with ParquetWriter(
            str(temporary),
            form.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=others,
            write_statistics=others,
            write_page_checksum=True,
        ) as file:
            writer = TableWriter(path, form, file)
            yield writer
            writer.end(origin)
        if not writer.rows:
            raise NothingWrittenError


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with needs("scale"):
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    try:
        file = ParquetFile(
            str(path),
            buffer_size=STREAM_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )
    except FileNotFoundError as error:
        raise EdgeError(f"{path}: not found. Check the path") from error
    except (pa.ArrowException, OSError) as error:
        raise EdgeError(
            f"{path}: is not a whole parquet file ({_first_line(error)}); get it again"
        ) from error
    with file:
        yield file


def _rows(batch: Any, path: Path, form: Form, start: int) -> Iterator[Row]:
    images = batch.column(form.image)
    if form.in_struct:
        images = images.field("bytes")
    keys = batch.column(form.key).to_pylist() if form.key else [None] * len(batch)
    for offset, (key, image) in enumerate(zip(keys, images, strict=True)):
        name = str(key) if key not in (None, "") else f"{start + offset:08}"
        data, error = image.as_py(), None
        if data is None:
            error = f"{path}/{name}: has no image"
        elif len(data) > MAX_BYTES:
            error = f"{path}/{name}: has {len(data):,} bytes, expected at most {MAX_BYTES:,}"
        yield Row(name, None if error else data, error, batch.slice(offset, 1))


def _image_column(path: Path, schema: Any, asked: str | None) -> str:
    found = [field.name for field in schema if _bytes_type(field.type) is not None]
    named = [asked] if asked else [name for name in IMAGES if name in found] or found
    if named and named[0] in found and (len(named) == 1 or named[0] in IMAGES):
        return str(named[0])
    what = f"column {asked}" if asked else "one column"
    have = ", ".join(f"{field.name}: {field.type}" for field in schema)
    raise EdgeError(
        f"{path}: expected {what} of image files (binary, or a struct with bytes), it has {have};"
        " name it: --image-column"
    )


def _key_column(schema: Any) -> str | None:
    import pyarrow as pa

    def is_key(kind: Any) -> bool:
        return bool(
            pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
        )

    fields = {field.name: field.type for field in schema}
    return next((name for name in KEYS if name in fields and is_key(fields[name])), None)


def _bytes_type(kind: Any) -> Any:
    """The type of an image's bytes in a column of this type; None if it has none."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else None
    is_bytes = kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
    return kind if is_bytes else None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
