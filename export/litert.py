"""LiteRT files for Android and the Raspberry Pi: `python -m export.litert`.

fp32.onnx becomes fp32.tflite and fp16.tflite (FP16 weights), int8.onnx int8.tflite with the scales
that it has. Each is run on the probes in LiteRT before it is published.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from runtime.errors import EXIT_ERROR, EdgeError, needs, run_command

with needs("quantize,litert", __name__):
    from export.tflite.convert import convert

from export.device_files import Candidate, DeviceFile, describe, publish
from export.gate import read_graph
from runtime import drift
from runtime.artifact import Artifact, read_artifact
from runtime.backends.litert import Execution, LiteRtSession
from runtime.session import DEFAULT_MODEL

SOURCES = ("fp32.onnx", "int8.onnx")
TOOLS = ("onnx", "ai-edge-litert", "flatbuffers")
PRECISIONS = {"fp32": ("fp32", "fp16"), "int8": ("int8",)}  # made of an artifact of the first


def export_litert(artifact: str | Path, out: str | Path | None = None) -> list[DeviceFile]:
    """Write the LiteRT files of an ONNX artifact into `out`, or else litert/ beside it.

    EdgeError if it cannot be read or converted, or, with status 3, if LiteRT drifts from FP32.
    """
    source = read_artifact(Path(artifact))
    precisions = PRECISIONS.get(source.manifest.precision)
    if source.path.suffix != ".onnx" or precisions is None:
        raise EdgeError(
            f"{source.path}: is {source.manifest.precision} for {source.manifest.target}, expected"
            f" one of {', '.join(SOURCES)}; FP16 weights are made of fp32.onnx"
        )
    folder = Path(out) if out else source.path.parent / "litert"
    return [_export(source, folder, precision) for precision in precisions]


def _export(source: Artifact, folder: Path, precision: str) -> DeviceFile:
    manifest = source.manifest
    stem = source.path.stem if precision == manifest.precision else precision
    path = folder / f"{stem}.tflite"
    content = convert(
        read_graph(source.model, str(source.path)),
        str(source.path),
        title=f"{manifest.model} {stem}",
        half=precision == "fp16",
    )
    probes = drift.decode_probes(source.probes, "the probes")
    with LiteRtSession(content, str(path)) as session:
        execution = session.execution()
        fidelity = drift.measure(session.run, probes)
    return publish(
        Candidate(
            source=source,
            path=path,
            precision=precision,
            target="litert",
            content=content,
            executes_as=executes_as(precision, execution),
            backend=session.name,
            backend_version=session.version,
            fidelity=fidelity,
            tools={tool: version(tool) for tool in TOOLS},
            flags=asdict(execution),
        )
    )


def executes_as(precision: str, execution: Execution) -> str:
    """What LiteRT was seen to compute."""
    outside = ", ".join(execution.outside_xnnpack)
    where = f"outside XNNPACK: {outside}" if outside else "all in XNNPACK"
    if precision == "int8":
        return f"int8, {execution.int8_mac_share:.1%} of the multiply-adds, seen in LiteRT; {where}"
    return f"fp32{', weights stored as FP16' if precision == 'fp16' else ''}; {where}"


def find_sources(artifact: str | Path) -> list[Path]:
    """The artifact, or those of a folder that LiteRT files are made of."""
    if not Path(artifact).is_dir():
        return [Path(artifact)]
    found = [Path(artifact, name) for name in SOURCES if Path(artifact, name).is_file()]
    if not found:
        raise EdgeError(
            f"{artifact}: holds none of {', '.join(SOURCES)}; make them: python -m export.onnx,"
            " then python -m quantize.int8"
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _main(arguments))


def _main(arguments: argparse.Namespace) -> int:
    made: list[DeviceFile] = []
    failures: list[EdgeError] = []
    for source in find_sources(arguments.artifact):
        try:
            made += export_litert(source, arguments.out)
        except EdgeError as error:
            failures.append(error)
    if arguments.json:
        files = [asdict(each) for each in made]
        print(json.dumps({**(files[0] if files else {}), "artifacts": files}))
    else:
        for each in made:
            print(describe(each), file=sys.stderr)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    statuses = {failure.status for failure in failures}
    return (statuses.pop() if len(statuses) == 1 else EXIT_ERROR) if statuses else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.litert",
        description="Write LiteRT files (.tflite) of ONNX artifacts and prove them on the probes.",
    )
    parser.add_argument(
        "--artifact",
        default=str(Path("artifacts", DEFAULT_MODEL)),
        metavar="F_OR_DIR",
        help=f"an ONNX artifact, or a folder with {' and '.join(SOURCES)}"
        f" (default: artifacts/{DEFAULT_MODEL})",
    )
    parser.add_argument("--out", metavar="DIR", help="default: litert/ beside the artifact")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
