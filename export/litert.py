"""LiteRT files for Android and the Raspberry Pi: `python -m export.litert`.

fp32.onnx becomes fp32.tflite and fp16.tflite (FP16 weights), int8.onnx int8.tflite with the scales
that it has. Each is run on the probes in LiteRT before it is published.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from export.device_command import DeviceFormat, run
from export.device_files import DeviceCandidate, DeviceFile, publish
from runtime import drift
from runtime.artifact import Artifact
from runtime.backends.litert import Execution, LiteRtSession
from runtime.errors import needs

TOOLS = ("onnx", "ai-edge-litert", "flatbuffers")


def require() -> None:
    """EdgeError with status 5 without the libraries."""
    with needs("quantize,litert"):
        import export.tflite.convert  # noqa: F401


def export(source: Artifact, folder: Path, precision: str) -> DeviceFile:
    """Write and prove one file; EdgeError with status 3, and no file, if it drifts from FP32."""
    from export.gate import read_graph
    from export.tflite.convert import convert

    manifest = source.manifest
    stem = source.path.stem if precision == manifest.precision else precision
    path = folder / f"{stem}.tflite"
    content = convert(
        read_graph(source.model, str(source.path)),
        str(source.path),
        title=f"{manifest.model} {stem}",
        half=precision == "fp16",
    )
    with LiteRtSession(content, str(path)) as session:
        execution = session.execution()
        fidelity = drift.measure(session.run, drift.decode_probes(source.probes, "the probes"))
    return publish(
        DeviceCandidate(
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


FORMAT = DeviceFormat(
    command="export.litert",
    title="LiteRT files (.tflite)",
    folder="litert",
    sources={"fp32.onnx": ("fp32", "fp16"), "int8.onnx": ("int8",)},
    require=require,
    export=export,
)


def main(argv: Sequence[str] | None = None) -> int:
    return run(FORMAT, argv)


if __name__ == "__main__":
    sys.exit(main())
