"""ncnn networks for phones and boards: `python -m export.ncnn`.

fp32.onnx becomes fp32.param and fp16.param (FP16 weights). int8-trt.onnx, whose activations are
int8 around zero as ncnn's are, becomes int8.param. Each has its .bin beside it, and is run on the
probes in ncnn before it is published.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from export.device_command import DeviceFormat, run
from export.device_files import DeviceCandidate, DeviceFile, publish
from runtime import drift
from runtime.artifact import Artifact
from runtime.backends.ncnn import NcnnSession
from runtime.errors import needs

TOOLS = ("onnx", "ncnn")
EXECUTES = {
    "fp32": "fp32",
    "fp16": "fp32, weights stored as FP16",
    "int8": "int8, {share:.1%} of the multiply-adds, as the file says",
}


def require() -> None:
    """EdgeError with status 5 without the libraries."""
    with needs("quantize,ncnn"):
        import export.ncnn_writer.convert  # noqa: F401


def export(source: Artifact, folder: Path, precision: str) -> DeviceFile:
    """Write and prove one network; EdgeError with status 3, and no file, if it drifts."""
    from export.gate import read_graph
    from export.ncnn_writer.convert import convert

    graph = read_graph(source.model, str(source.path))
    converted = convert(graph, str(source.path), half=precision == "fp16")
    path = folder / f"{precision}.param"
    with NcnnSession(converted.param, converted.bin, str(path)) as session:
        fidelity = drift.measure(session.run, drift.decode_probes(source.probes, "the probes"))
    return publish(
        DeviceCandidate(
            source=source,
            path=path,
            precision=precision,
            target="ncnn",
            content=converted.param,
            parts={f"{precision}.bin": converted.bin},
            executes_as=EXECUTES[precision].format(share=converted.int8_mac_share),
            backend=session.name,
            backend_version=session.version,
            fidelity=fidelity,
            tools={tool: version(tool) for tool in TOOLS},
            flags={"int8_mac_share": converted.int8_mac_share},
        )
    )


FORMAT = DeviceFormat(
    command="export.ncnn",
    title="ncnn networks (.param, .bin)",
    folder="ncnn",
    sources={"fp32.onnx": ("fp32", "fp16"), "int8-trt.onnx": ("int8",)},
    require=require,
    export=export,
)


def main(argv: Sequence[str] | None = None) -> int:
    return run(FORMAT, argv)


if __name__ == "__main__":
    sys.exit(main())
