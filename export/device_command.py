"""What the commands that write a device's files have in common: find the sources, report, exit."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from export.device_files import DeviceFile, describe
from runtime.artifact import Artifact, read_artifact
from runtime.errors import EXIT_ERROR, EdgeError, run_command
from runtime.session import DEFAULT_MODEL


@dataclass(frozen=True)
class DeviceFormat:
    """A format, and how its files are made.

    `sources` are the ONNX artifacts that it takes, each with the precisions that become of it.
    `export(source, folder, precision)` writes one file; `require` imports what an extra brings.
    """

    command: str
    title: str
    folder: str
    sources: Mapping[str, tuple[str, ...]]
    require: Callable[[], None]
    export: Callable[[Artifact, Path, str], DeviceFile]


def export_files(
    kind: DeviceFormat, artifact: str | Path, out: str | Path | None = None
) -> list[DeviceFile]:
    """Write the files of an ONNX artifact into `out`, or else into the format's folder beside it.

    EdgeError if it cannot be read or converted, or, with status 3, if the result drifts from FP32.
    """
    source = read_artifact(Path(artifact))
    takes = (name for name in kind.sources if name.startswith(source.manifest.precision))
    made = kind.sources.get(next(takes, ""))
    if source.path.suffix != ".onnx" or made is None:
        raise EdgeError(
            f"{source.path}: is {source.manifest.precision} for {source.manifest.target}, expected"
            f" one of {', '.join(kind.sources)}; FP16 weights are made of fp32.onnx"
        )
    folder = Path(out) if out else source.path.parent / kind.folder
    return [kind.export(source, folder, precision) for precision in made]


def find_sources(kind: DeviceFormat, artifact: str | Path) -> list[Path]:
    """The artifact, or those of a folder that the format takes."""
    if not Path(artifact).is_dir():
        return [Path(artifact)]
    found = [Path(artifact, name) for name in kind.sources if Path(artifact, name).is_file()]
    if not found:
        raise EdgeError(
            f"{artifact}: holds none of {', '.join(kind.sources)}; make them:"
            " python -m export.onnx, then python -m quantize.int8"
        )
    return found


def run(kind: DeviceFormat, argv: Sequence[str] | None) -> int:
    """Run the command: write what can be written, report it and what failed."""
    return run_command(_parser(kind), lambda arguments: _run(kind, arguments), argv)


def _run(kind: DeviceFormat, arguments: argparse.Namespace) -> int:
    kind.require()
    made: list[DeviceFile] = []
    failures: list[EdgeError] = []
    for source in find_sources(kind, arguments.artifact):
        try:
            made += export_files(kind, source, arguments.out)
        except EdgeError as error:
            failures.append(error)
    if arguments.json:
        files = [asdict(each) for each in made]
        failed = [str(failure) for failure in failures]
        print(json.dumps({**(files[0] if files else {}), "artifacts": files, "failures": failed}))
    else:
        for each in made:
            print(describe(each))
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    statuses = {failure.status for failure in failures}
    return (statuses.pop() if len(statuses) == 1 else EXIT_ERROR) if statuses else 0


def _parser(kind: DeviceFormat) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {kind.command}",
        description=f"Write {kind.title} of ONNX artifacts and prove them on the probes.",
    )
    parser.add_argument(
        "--artifact",
        default=str(Path("artifacts", DEFAULT_MODEL)),
        metavar="F_OR_DIR",
        help=f"an ONNX artifact, or a folder with {' and '.join(kind.sources)}"
        f" (default: artifacts/{DEFAULT_MODEL})",
    )
    parser.add_argument("--out", metavar="DIR", help=f"default: {kind.folder}/ beside the artifact")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
