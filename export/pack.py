"""One zip with all that a device needs: `python -m export.pack --target tensorrt`.

ONNX files with their manifests and probes, the wheel, a face of nobody, and a README.md with the
commands that build, check and enlarge there. The same content gives the same bytes.
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime import drift
from runtime.errors import EdgeError, needs, run_command

with needs("tensorrt-rtx", __name__):
    from export.gate import check_for_tensorrt, read_graph
    from export.tensorrt import SOURCES

from runtime.artifact import MAX_ARTIFACT_BYTES, Artifact, read_artifact
from runtime.atomic import read_bytes, sha256_bytes, sha256_file, writing
from runtime.manifest import manifest_path
from runtime.session import DEFAULT_MODEL

# What each target takes, the first that is there of those joined by '|'.
TARGETS = {
    "tensorrt": SOURCES,
    "cpu": ("fp32.onnx", "int8.onnx"),
    "openvino": ("fp32.onnx", "int8-openvino.onnx|int8.onnx"),
}
BACKENDS = {"tensorrt": "tensorrt", "cpu": "onnxruntime", "openvino": "openvino"}
FACE = Path(__file__).with_name("face.png")  # synthetic, 16x16
EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's first moment, for all files

README = """# {model} for {target}

| file | computes in | bytes | fidelity to FP32 at least | sha256 |
| --- | --- | --- | --- | --- |
{rows}

`{model}/*.onnx.json` say what each file was made of and how it did; `probes.npz` are the pictures
by which the device proves that it computes the same.

## Install

{install}

## Everywhere: check and enlarge with ONNX Runtime

    python -m runtime.check {model}/fp32.onnx --backend onnxruntime
    python -m runtime.infer face.png --artifact {model}/fp32.onnx --backend onnxruntime
{native}"""
PLAIN_INSTALL = "    python -m pip install {wheel}{more}"
TENSORRT_INSTALL = """On a Jetson, where TensorRT comes with JetPack (docs/jetson.md has the rest):

    python3 -m venv --system-site-packages venv && . venv/bin/activate
    python -m pip install {wheel} onnx "cuda-bindings==12.*"

On a PC with an NVIDIA GPU: `python -m pip install "{wheel}[tensorrt]"`, or `[tensorrt-rtx]`."""
TENSORRT_COMMANDS = """
## With TensorRT: build, check and enlarge

An engine runs only on the kind of GPU and the version of TensorRT that built it: build it on the
device. Each build is a line for each precision, and says where the engine is.

    python -m export.tensorrt --artifact {sources}
    python -m runtime.check {model}/trt/*/{best}.engine
    python -m runtime.infer face.png --artifact {model}/trt/*/{best}.engine
"""
OPENVINO_COMMANDS = """
## With OpenVINO

    python -m runtime.check {small} --backend openvino
    python -m runtime.infer face.png --artifact {small} --backend openvino
"""
CPU_COMMANDS = """
## In INT8

    python -m runtime.check {small} --backend onnxruntime
    python -m runtime.infer face.png --artifact {small} --backend onnxruntime
"""


@dataclass(frozen=True)
class Pack:
    """The zip and what is in it."""

    archive: str
    target: str
    bytes: int
    sha256: str
    files: tuple[str, ...]


def pack(
    target: str = "tensorrt",
    folder: str | Path = Path("artifacts", DEFAULT_MODEL),
    wheel: str | Path | None = None,
    out: str | Path | None = None,
) -> Pack:
    """Pack a model's folder for a target; EdgeError if a file is missing, damaged or would not do.

    Without `wheel`, the one in dist/ is taken.
    """
    folder, wheel = Path(folder), Path(wheel) if wheel else _find_wheel()
    artifacts = _read(folder, target)
    model = artifacts[0].manifest.model
    out = Path(out or Path("dist", f"{model}-{target}.zip"))
    content = {"README.md": _readme(target, model, wheel.name, artifacts).encode()}
    content[wheel.name] = read_bytes(wheel, MAX_ARTIFACT_BYTES)
    content["face.png"] = read_bytes(FACE, MAX_ARTIFACT_BYTES)
    content[f"{model}/probes.npz"] = artifacts[0].probes
    for artifact in artifacts:
        for path in (artifact.path, manifest_path(artifact.path)):
            content[f"{model}/{path.name}"] = read_bytes(path, MAX_ARTIFACT_BYTES)
    with writing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(content):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content[name])
    return Pack(str(out), target, out.stat().st_size, sha256_file(out), tuple(sorted(content)))


def _find_wheel() -> Path:
    wheels = sorted(Path("dist").glob("aminet_edge-*.whl"))
    if len(wheels) != 1:
        raise EdgeError(f"dist/ holds {len(wheels)} wheels, expected one; make wheel, or --wheel F")
    return wheels[0]


def _read(folder: Path, target: str) -> list[Artifact]:
    """The artifacts for a target, each proved whole and, for TensorRT, gated."""
    artifacts = []
    for names in TARGETS[target]:
        paths = [folder / name for name in names.split("|")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise EdgeError(
                f"{paths[0]}: is not there; make it: python -m export.onnx, python -m quantize.fp16"
                f" or python -m quantize.int8 --target {target}"
            )
        artifact = read_artifact(path)
        if target == "tensorrt":
            check_for_tensorrt(read_graph(artifact.model, str(path)), str(path))
        artifacts.append(artifact)
    if len({artifact.manifest.checkpoint_sha256 for artifact in artifacts}) > 1:
        raise EdgeError(
            f"{folder}: holds files of different weights; export and quantize again:"
            " python -m export.onnx"
        )
    return artifacts


def _readme(target: str, model: str, wheel: str, artifacts: Sequence[Artifact]) -> str:
    rows = [
        f"| {model}/{artifact.path.name} | {artifact.manifest.precision} |"
        f" {len(artifact.model):,} |"
        f" {drift.limit(artifact.manifest, BACKENDS[target]).fidelity_db:.1f} dB |"
        f" {sha256_bytes(artifact.model)[:16]} |"
        for artifact in artifacts
    ]
    files = [f"{model}/{artifact.path.name}" for artifact in artifacts]
    if target == "tensorrt":
        install = TENSORRT_INSTALL.format(wheel=wheel)
        best = artifacts[1].path.stem
        native = TENSORRT_COMMANDS.format(sources=" ".join(files), model=model, best=best)
    else:
        more = " openvino" if target == "openvino" else ""
        install = PLAIN_INSTALL.format(wheel=wheel, more=more)
        commands = OPENVINO_COMMANDS if target == "openvino" else CPU_COMMANDS
        native = commands.format(small=files[-1])
    return README.format(
        model=model, target=target, rows="\n".join(rows), install=install, native=native
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _main(arguments))


def _main(arguments: argparse.Namespace) -> int:
    made = pack(
        arguments.target, Path("artifacts", arguments.model), arguments.wheel, arguments.out
    )
    if arguments.json:
        print(json.dumps(asdict(made)))
    else:
        print(
            f"{made.archive}: {len(made.files)} files for {made.target}, {made.bytes / 2**20:.1f}"
            f" MiB, sha256 {made.sha256[:12]}; unpack it on the device and follow README.md",
            file=sys.stderr,
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.pack",
        description="Pack a model for a device: ONNX files, manifests, probes, wheel and README.",
    )
    parser.add_argument("--target", choices=TARGETS, default="tensorrt", help="default: tensorrt")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="M", help=f"default: {DEFAULT_MODEL}"
    )
    parser.add_argument("--wheel", metavar="F", help="default: the one in dist/")
    parser.add_argument("--out", metavar="F", help="default: dist/<model>-<target>.zip")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
