"""Core ML packages for iPhones and Macs: `python -m export.coreml`.

fp32.onnx becomes fp16.mlpackage, int8-trt.onnx int8.mlpackage (INT8 weights and activations, FP16
else). Core ML runs on Apple's systems alone: here the program is read back from the package and
interpreted on the probes, which proves the conversion and not the device. docs/phone.md says how to
run the probes there.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from export.device_command import DeviceFormat, run
from export.device_files import DeviceCandidate, DeviceFile, publish
from export.packed import folder_listing
from runtime import drift
from runtime.artifact import Artifact
from runtime.backends.base import silenced
from runtime.errors import needs

TOOLS = ("onnx", "coremltools", "torch")
NOT_RUN = "converted and interpreted; not run (needs a Mac)"
DESCRIPTION = (
    "{model}, face super-resolution: lr (1, 3, {side}, {side}), RGB in [0, 1], to sr (1, 3, 128,"
    " 128), RGB to be clipped to [0, 1]"
)
BACKEND = "coreml, interpreted"


def require() -> None:
    """EdgeError with status 5 without the libraries."""
    with needs("export,coreml"), silenced():  # coremltools says what it was not tested with
        import export.mil.package
        import export.mil.program  # noqa: F401


def export(source: Artifact, folder: Path, precision: str) -> DeviceFile:
    """Write one package; EdgeError with status 3, and nothing, if its program drifts from FP32."""
    from export.gate import read_graph
    from export.graph import Graph
    from export.mil.package import InterpretedPackage, make_package, replace_package
    from export.mil.program import write_program
    from export.weights import int8_mac_share

    graph = read_graph(source.model, str(source.path))
    path = folder / f"{precision}.mlpackage"
    with silenced():
        program = write_program(graph, str(source.path))
        facts = {"model": source.manifest.model, "side": source.manifest.lr_side}
        files = make_package(program, DESCRIPTION.format(**facts))
        package = InterpretedPackage(files)
    share = int8_mac_share(Graph(graph, str(source.path)))
    computed = f"int8, {share:.1%} of the multiply-adds" if precision == "int8" else precision
    return publish(
        DeviceCandidate(
            source=source,
            path=path,
            precision=precision,
            target="coreml",
            content=folder_listing(files),
            parts=files,
            executes_as=f"{computed}; {NOT_RUN}",
            backend=BACKEND,
            backend_version=version("coremltools"),
            fidelity=drift.measure(package.run, drift.decode_probes(source.probes, "the probes")),
            tools={tool: version(tool) for tool in TOOLS},
            flags={"int8_mac_share": share},
            emulated=True,
        ),
        replace_package,
    )


FORMAT = DeviceFormat(
    command="export.coreml",
    title="Core ML packages (.mlpackage)",
    folder="coreml",
    sources={"fp32.onnx": ("fp16",), "int8-trt.onnx": ("int8",)},
    require=require,
    export=export,
)


def main(argv: Sequence[str] | None = None) -> int:
    return run(FORMAT, argv)


if __name__ == "__main__":
    sys.exit(main())
