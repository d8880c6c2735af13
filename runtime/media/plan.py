"""From the inputs that a user names to jobs: files, folders, globs, tars and standard input.

Jobs are made as they are asked for: a folder of a million faces is never held as a list.
"""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runtime.dataset import is_image_name, is_parquet_name, iter_files, iter_tar
from runtime.errors import EXIT_USAGE, EdgeError
from runtime.image import MAX_BYTES, WRITTEN_SUFFIXES
from runtime.media.archives import Archive
from runtime.media.jobs import Job
from runtime.media.names import (
    RESULT,
    is_archive_name,
    is_input_name,
    is_result,
    is_video_name,
    result_name,
)
from runtime.media.outputs import FileOutput, Output, StandardOutput

STDIN = "-"


@dataclass(frozen=True)
class Shard:
    """Every `count`-th file or archive, from the `number`-th on, which begins with 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read 'I/N'; EdgeError with status 2 for anything else."""
        number, slash, count = text.partition("/")
        if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise EdgeError(f"--shard {text}: expected I/N, from 1/N to N/N", EXIT_USAGE)


class Plan:
    """What is to be done for `inputs`; `ignored` counts the suffixes that were passed over.

    `x.jpg` becomes `x_sr.png`, `x.mkv` `x_sr.mp4` and `x.tar` `x_sr.tar`, beside it or in the
    folder `out`. An `out` with a suffix names the file for a single input, or the `archive` for all
    results. A folder's tree is kept, and what is called *_sr in it is taken for a result. Of
    parquet files `image_column` has the images.

    Raises EdgeError if two inputs would be written to one file, or one over an input.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        out: str | None = None,
        shard: Shard = Shard(),
        image_column: str | None = None,
    ) -> None:
        if out == STDIN:
            if list(inputs) != [STDIN]:
                raise EdgeError("--out -: is for -, standard input, alone", EXIT_USAGE)
            out = None
        names_file = bool(out and Path(out).suffix and not Path(out).is_dir())
        self.archive = Path(out) if out and names_file and is_archive_name(Path(out)) else None
        self.image_column = image_column
        self._file = Path(out) if out and names_file and not self.archive else None
        self._folder = Path(out) if out and not names_file else None
        self._shard = shard
        self._inputs = [(source, _matches(source)) for source in inputs]
        self.ignored: Counter[str] = Counter()
        if self._file:
            self._check_single(self._file)
        self._refuse_collisions()

    def jobs(self, archive: Archive | None = None) -> Iterator[Job]:
        """The files of this shard in order; `archive` is where results go, if they go into one."""
        self.ignored.clear()
        for index, job in enumerate(self._all_jobs(archive)):
            if index % self._shard.count == self._shard.number - 1:
                yield job

    def count(self, limit: int) -> int | None:
        """How many jobs there are; None if there are more than `limit`, or archives among them."""
        if any(source == STDIN for source, _ in self._inputs):
            return len(self._inputs) if len(self._inputs) == 1 else None
        count = 0
        for job in self.jobs():
            count += 1
            if count > limit or job.is_archive:
                return None
        return count

    @property
    def has_video(self) -> bool:
        """Whether a video is named, or matched by a glob."""
        return any(
            is_video_name(path)
            for source, found in self._inputs
            for path in ([source] if found is None else found)
        )

    def members(self, job: Job, archive: Archive) -> Iterator[Job]:
        """The images in a job's tar or parquet file, in its order; results go into `archive`."""
        assert job.path
        members = self._rows if is_parquet_name(job.path) else self._tar_members
        try:
            yield from members(job.path, archive)
        except EdgeError as error:
            yield Job(job.name, error=str(error))

    def _tar_members(self, path: Path, archive: Archive) -> Iterator[Job]:
        for name, read in iter_tar(path):
            if not is_image_name(name):
                self._ignore(PurePosixPath(name))
                continue
            data, error = None, None
            try:
                data = read()
            except EdgeError as problem:
                error = str(problem)
            output = archive.output(name)
            yield Job(f"{path}/{name}", output, data=data, error=error, listed=True)

    def _rows(self, path: Path, archive: Archive) -> Iterator[Job]:
        from runtime.media.parquet import iter_rows, read_form

        for row in iter_rows(path, read_form(path, self.image_column)):
            if isinstance(row, EdgeError):
                yield Job(str(path), error=str(row))
                continue
            # An archive of all results has no room for the other columns, which may differ.
            output = archive.output(row.name, None if self.archive else row.cells)
            yield Job(f"{path}/{row.name}", output, data=row.data, error=row.error, listed=True)

    def _all_jobs(self, archive: Archive | None) -> Iterator[Job]:
        for source, found in self._inputs:
            if source == STDIN:
                yield self._standard_input(archive)
            elif found is None:
                yield from self._of_path(Path(source), archive)
            elif wanted := [path for path in found if not is_result(path)]:
                for path in wanted:
                    yield from self._of_path(path, archive, listed=True)
            else:
                what = f"only results (*{RESULT})" if found else "nothing"
                yield Job(source, error=f"{source}: matches {what}; check the pattern")

    def _of_path(self, path: Path, archive: Archive | None, listed: bool = False) -> Iterator[Job]:
        if not path.is_dir():
            folder = self._folder or path.parent
            yield Job(str(path), self._output(path.name, folder, archive), path, listed=listed)
            return
        try:
            yield from self._of_folder(path, archive)
        except EdgeError as error:
            yield Job(str(path), error=str(error))

    def _of_folder(self, folder: Path, archive: Archive | None) -> Iterator[Job]:
        wanted, results = 0, 0
        parent, place = folder, self._folder or folder
        siblings: tuple[Path, str] | None = None
        taken: dict[Path, Path] = {}  # results of siblings, and their sources
        for path in iter_files(folder):
            if not is_input_name(path):
                self._ignore(path)
            elif is_result(path):
                results += 1
            else:
                wanted += 1
                if path.parent != parent:  # the files of a folder follow each other
                    parent = path.parent
                    place = self._folder / parent.relative_to(folder) if self._folder else parent
                result = place / result_name(path.name)
                # Sorted names that are alike up to a dot follow each other: others cannot collide.
                if siblings != (siblings := (parent, path.name.partition(".")[0])):
                    taken.clear()
                if (first := taken.setdefault(result, path)) is not path:
                    yield Job(str(path), error=str(_collision(first, path, result)))
                    continue
                output: Output = FileOutput(result)
                if archive is not None:
                    output = archive.output(path.relative_to(folder).as_posix())
                yield Job(str(path), output, path, listed=True)
        if not wanted:
            what = f"only results (*{RESULT})" if results else "no image or video"
            yield Job(str(folder), error=f"{folder}: holds {what} to upscale")

    def _output(self, name: str, folder: Path, archive: Archive | None) -> Output:
        if archive is not None:
            return archive.output(name)
        return FileOutput(self._file or folder / PurePosixPath(result_name(name)).name)

    def _standard_input(self, archive: Archive | None) -> Job:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return Job(STDIN, error=f"standard input: has more than {MAX_BYTES:,} bytes")
        if archive or self._file or self._folder:
            return Job(STDIN, self._output("stdin", self._folder or Path(), archive), data=data)
        if sys.stdout.isatty():
            return Job(STDIN, error="standard input: its result is a PNG file; give --out")
        return Job(STDIN, StandardOutput(), data=data)

    def _ignore(self, path: PurePosixPath | Path) -> None:
        self.ignored[path.suffix.lower() or path.name] += 1

    def _check_single(self, out: Path) -> None:
        (source, found), *more = self._inputs
        if more or found is not None or (source != STDIN and Path(source).is_dir()):
            raise EdgeError(f"--out {out}: names one file for several inputs; give a folder")
        if is_archive_name(Path(source)):
            kinds = ".tar or .parquet"
            raise EdgeError(f"--out {out}: {source} has many images; give a folder or a {kinds}")
        expected = (".mp4",) if is_video_name(source) else WRITTEN_SUFFIXES
        if out.suffix.lower() not in expected:
            raise EdgeError(f"--out {out}: expected a name that ends in {' or '.join(expected)}")

    def _refuse_collisions(self) -> None:
        """Look at what is named or matched by globs; folders are looked at as they are read."""
        paths = [
            path
            for source, found in self._inputs
            for path in ([Path(source)] if found is None else found)
            if source != STDIN and not (found is not None and is_result(path))
        ]
        folders = [path for path in paths if path.is_dir()]
        files = [path for path in paths if path not in folders]
        inputs = {os.path.realpath(path) for path in files}
        writers: dict[str, Path] = {}
        if self.archive:
            self._refuse_own_input(self.archive, inputs, folders)
        for path in files if not self.archive else ():
            target = self._file or (self._folder or path.parent) / result_name(path.name)
            place = os.path.realpath(target)
            if place in inputs:
                raise EdgeError(f"{target}: is an input, and would be overwritten; give --out")
            if place in writers:
                raise _collision(writers[place], path, target)
            writers[place] = path
        self._refuse_overlaps(folders, files)

    def _refuse_own_input(self, archive: Path, inputs: set[str], folders: Sequence[Path]) -> None:
        """Raise EdgeError if the archive of all results is an input, or the next run's."""
        place = Path(os.path.realpath(archive))
        if str(place) in inputs:
            raise EdgeError(f"{archive}: is an input, and would be overwritten; give another --out")
        for folder in folders if not is_result(place) else ():
            if place.is_relative_to(os.path.realpath(folder)):
                kept = f"{RESULT}{archive.suffix}"
                raise EdgeError(
                    f"--out {archive}: lies in the input {folder}, where the next run would take"
                    f" it for an input; end its name in {kept}, or give another place"
                )

    def _refuse_overlaps(self, folders: Sequence[Path], files: Sequence[Path]) -> None:
        """Raise EdgeError if a folder brings a file, or a folder, that is named as well."""
        for number, folder in enumerate(folders):
            root = Path(os.path.realpath(folder))
            others = [*folders[:number], *folders[number + 1 :], *files]
            for other in others:
                there = Path(os.path.realpath(other))
                same_place = not self._folder or there.parent == root or there == root
                if other.exists() and there.is_relative_to(root) and same_place:
                    raise _collision(other, folder, self._folder or other.parent)


def _matches(source: str) -> list[Path] | None:
    """What a glob matches, sorted; None if the input is none."""
    if source == STDIN or not glob.has_magic(source) or os.path.lexists(source):
        return None
    return [Path(path) for path in sorted(glob.glob(source, recursive=True))]


def _collision(first: Path, second: Path, target: Path) -> EdgeError:
    return EdgeError(
        f"{first} and {second} would both be written to {target}; upscale them apart, each with"
        " its --out"
    )
