"""One zip with all that a device needs: `python -m export.pack --target tensorrt`.

The model's files with their manifests and probes, the wheel where Python runs it, a synthetic face,
for phones a sample that runs the probes first, and a README.md with the commands that check and
upscale there. The same content gives the same bytes.
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from export.pack_targets import TARGETS, PackTarget
from export.packed import PackedArtifact, encode_probes, read_packed
from export.triton import repository
from runtime import drift
from runtime.artifact import MAX_ARTIFACT_BYTES, read_artifact
from runtime.atomic import read_bytes, sha256_file, writing
from runtime.errors import EdgeError, needs, run_command
from runtime.formats import ONNX, format_of
from runtime.image import LR_SIDE, MAX_LR_SIDE, encode_image, face_sides
from runtime.session import DEFAULT_MODEL

FACE = Path(__file__).with_name("face.png")  # synthetic, of LR_SIDE
SAMPLES = Path(__file__).with_name("samples")
TRITON_INSTANCES = 2  # the README says to set the server's cores
EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's first moment, for all files

README = """# {model} for {target}

| file | computes in | bytes | fidelity to FP32 at least | sha256 |
| --- | --- | --- | --- | --- |
{rows}

The model reads RGB faces of {side}x{side} px, to which images of {least} to {most} px are
resampled, and makes 128x128. The manifests (`.json`) say what each file was made of and how it did
where. The probes are images of synthetic faces with what FP32 makes of them: by them the device
proves that it computes the same.
{text}"""


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

    Without `wheel`, the one in dist/ is taken, if the target runs Python.
    """
    chosen, folder = TARGETS[target], Path(folder)
    if chosen.tensorrt:
        with needs("tensorrt-rtx"):
            import export.gate  # noqa: F401
    brought = (Path(wheel) if wheel else _find_wheel()) if chosen.wheel else None
    artifacts = _read(folder, target)
    model = artifacts[0].manifest.model
    out = Path(out or Path("dist", f"{model}-{target}.zip"))
    content = _content(chosen, folder, artifacts)
    if brought:
        content[brought.name] = read_bytes(brought, MAX_ARTIFACT_BYTES)
    text = _readme(target, brought.name if brought else "", folder, artifacts)
    content["README.md"] = text.encode()
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


def _read(folder: Path, target: str) -> list[PackedArtifact]:
    """The artifacts for a target, each proved whole and, for TensorRT, gated."""
    artifacts = []
    for names in TARGETS[target].files:
        paths = [folder / name for name in names.split("|")]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise EdgeError(
                f"{paths[0]}: not found. Create it with: {_maker(paths[0], folder, target)}"
            )
        artifact = read_packed(path)
        if TARGETS[target].tensorrt:
            from export.gate import check_for_tensorrt, read_graph

            check_for_tensorrt(read_graph(artifact.files[path.name], str(path)), str(path))
        artifacts.append(artifact)
    if len({artifact.manifest.checkpoint_sha256 for artifact in artifacts}) > 1:
        raise EdgeError(
            f"{folder}: holds files of different weights; export and quantize again:"
            " python -m export.onnx"
        )
    return artifacts


def _maker(path: Path, folder: Path, target: str) -> str:
    if (kind := format_of(path)) is not ONNX:
        return f"{kind.make} --artifact {folder}"
    kinds = "python -m export.onnx, then python -m quantize.fp16 or python -m quantize.int8"
    kinds += f" --artifact {folder / 'fp32.onnx'}"
    return f"{kinds} --target {target}" if target in ("tensorrt", "openvino", "cpu") else kinds


def _content(
    target: PackTarget, folder: Path, artifacts: Sequence[PackedArtifact]
) -> dict[str, bytes]:
    """All files by their names in the zip, but for the wheel and the README."""
    model = artifacts[0].manifest.model
    content = {"face.png": _face(artifacts[0])}
    content[f"{model}/probes.npz"] = artifacts[0].probes
    for artifact in artifacts:
        place = f"{model}/{artifact.path.parent.relative_to(folder).as_posix()}"
        place = place.removesuffix("/.")
        for name, data in artifact.files.items():
            content[f"{place}/{name}"] = data
        if target.samples:
            limit = drift.limit(artifact.manifest, artifact.manifest.target)
            encoded = encode_probes(artifact.probes, limit)
            content[f"{place}/{artifact.path.stem}.probes.bin"] = encoded
    if target.triton:
        served = repository(read_artifact(artifacts[-1].path), TRITON_INSTANCES)
        content |= {f"models/{name}": data for name, data in served.items()}
    for sample in target.samples:
        text = read_bytes(SAMPLES / sample, MAX_ARTIFACT_BYTES).decode()
        content[sample] = text.replace("{model}", model).encode()
    return content


def _face(artifact: PackedArtifact) -> bytes:
    """A synthetic face of the size that the model reads, as PNG."""
    if artifact.manifest.lr_side == LR_SIDE:
        return read_bytes(FACE, MAX_ARTIFACT_BYTES)
    probes = drift.decode_probes(artifact.probes, "the probes")
    return b"".join(encode_image(probes.lr[0], FACE.suffix))


def _readme(target: str, wheel: str, folder: Path, artifacts: Sequence[PackedArtifact]) -> str:
    model, side = artifacts[0].manifest.model, artifacts[0].manifest.lr_side
    least, most = face_sides(side)
    names = [f"{model}/{each.path.relative_to(folder).as_posix()}" for each in artifacts]
    rows = [
        f"| {name} | {_computes(artifact)} | {artifact.bytes:,} |"
        f" {_limit(artifact, target).fidelity_db:.1f} dB | {artifact.manifest.sha256[:16]} |"
        for name, artifact in zip(names, artifacts, strict=True)
    ]
    text = TARGETS[target].text.format(
        wheel=wheel,
        model=model,
        sources=" ".join(names),
        best=artifacts[min(1, len(artifacts) - 1)].path.stem,
        small=names[-1],
        side=side,
        # A larger image would be taken for a photo where the face detector is installed.
        face="face.png --mode face" if side > MAX_LR_SIDE else "face.png",
    )
    return README.format(
        model=model,
        target=target,
        side=side,
        least=least,
        most=most,
        rows="\n".join(rows),
        text=text,
    )


def _computes(artifact: PackedArtifact) -> str:
    """The precision, and of INT8 how much."""
    precision, share = artifact.manifest.precision, artifact.manifest.flags.get("int8_mac_share")
    return f"{precision}, {share:.1%} of the multiply-adds" if share else precision


def _limit(artifact: PackedArtifact, target: str) -> drift.Limit:
    """Of a device's own format, that of its runtime; of ONNX files, that of the pack's backend."""
    is_onnx = format_of(artifact.path) is ONNX
    backend = TARGETS[target].backend if is_onnx else artifact.manifest.target
    return drift.limit(artifact.manifest, backend)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _main, argv)


def _main(arguments: argparse.Namespace) -> int:
    made = pack(
        arguments.target, Path("artifacts", arguments.model), arguments.wheel, arguments.out
    )
    if arguments.json:
        print(json.dumps(asdict(made)))
    else:
        print(
            f"{made.archive}: {len(made.files)} files for {made.target}, {made.bytes / 2**20:.1f}"
            f" MiB, sha256 {made.sha256[:12]}; unpack it on the device and follow README.md"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.pack",
        description="Pack a model for a device: its files, manifests, probes, samples and README.",
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
