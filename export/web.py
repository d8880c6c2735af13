"""A web page that upscales faces in the browser: `python -m export.web --out site/`.

The folder is static and complete: the page, ONNX Runtime Web, the models with their manifests and
probes, and the face detector. Any web server can host it (docs/browser.md); `--serve` does so on
this machine. The page checks the hashes of all files and runs the probes in each backend of the
device before it takes a photo.
"""

import argparse
import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from export import npm
from export.web_manifest import HALF, LITERT_FILE, computed_in, describe_site, runtimes
from export.web_server import PORT, serve
from runtime import drift
from runtime.artifact import MAX_ARTIFACT_BYTES, Artifact, read_artifact
from runtime.atomic import read_bytes, sha256_bytes, write_bytes, writing_folder
from runtime.backends.open import open_backend
from runtime.errors import EXIT_DRIFT, EdgeError, run_command
from runtime.manifest import Measurement, manifest_path
from runtime.media.detector import detector_model
from runtime.progress import Progress, Steps
from runtime.session import DEFAULT_MODEL
from runtime.verification import describe_failure, measure

MANIFEST = "site.json"
PAGE = Path(__file__).with_name("site")
TARGETS = ("any", "cpu")  # whose files a browser can run


@dataclass(frozen=True)
class Site:
    """The folder, and the fidelity of what it offers first, measured in ONNX Runtime as a proxy."""

    artifact: str
    model: str
    files: int
    bytes: int
    precision: str
    fidelity_db: float
    measured_on: tuple[Measurement, ...]
    sha256: str


def build(
    out: str | Path = "site",
    artifact: str | Path | None = None,
    tarballs: Sequence[str | Path] = (),
    overwrite: bool = False,
    litert: bool = False,
    step: Progress = lambda line: None,
) -> Site:
    """Write the site's folder atomically.

    `artifact` is an ONNX file or a folder of them; with `litert` its litert/int8.tflite is offered
    as well. `step` hears what is being done. Raises EdgeError: status 3 if one drifts on the
    probes, 5 without the face detector.
    """
    out = Path(out)
    _refuse_taken(out, overwrite)
    artifacts = _read(Path(artifact or Path("artifacts", DEFAULT_MODEL)), litert)
    measured = {}
    for each in artifacts:
        # No processor's kernels stand in for a GPU's, and ONNX Runtime opens no other format.
        if computed_in(each) != "fp16" and each.path.suffix == ".onnx":
            step(f"running the probes: {each.path.name}")
            measured[each.path.name] = _measure(each)
    content = _content(artifacts)
    for runtime in runtimes(artifacts):
        package = runtime.package
        step(f"fetching {package.name} {package.version}")
        members = npm.read_members(npm.fetch(package, tarballs), runtime.members)
        content |= {runtime.place(name): data for name, data in members.items()}
    content = dict(sorted(content.items()))
    manifest = describe_site(artifacts, content, measured)
    content[MANIFEST] = f"{json.dumps(manifest, indent=1, sort_keys=True)}\n".encode()
    digest = sha256_bytes(content[MANIFEST])
    content["index.html"] = _index(digest)
    with writing_folder(out) as temporary:
        for name, data in content.items():
            write_bytes(temporary / name, data)
    first = artifacts[0]
    return Site(
        artifact=str(out),
        model=first.manifest.model,
        files=len(content),
        bytes=sum(map(len, content.values())),
        precision=first.manifest.precision,
        fidelity_db=next(iter(measured.values())).fidelity_db,
        measured_on=tuple(measured.values()),
        sha256=digest,
    )


def _refuse_taken(out: Path, overwrite: bool) -> None:
    """A folder that is no site is never replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not (out / MANIFEST).is_file():
        raise EdgeError(f"{out}: exists and is not a site of this command; give another --out")
    if not overwrite:
        raise EdgeError(f"{out}: exists; give another --out, or --overwrite")


def _read(source: Path, litert: bool) -> list[Artifact]:
    """The artifacts to offer, the one for WebAssembly first."""
    if not source.exists():
        raise EdgeError(
            f"{source}: not found. Create it with: python -m export.onnx, then quantize.int8 and"
            " quantize.fp16; or give --artifact"
        )
    paths = _choose(source) if source.is_dir() else [source]
    if source.suffix != ".onnx" and not source.is_dir():
        raise EdgeError(f"{source}: is no ONNX file, expected int8.onnx, fp32.onnx or a folder")
    if litert:
        paths.append(_lite_file(source))
    artifacts = [read_artifact(path) for path in paths]
    for path, artifact in zip(paths, artifacts, strict=True):
        beside_others = path.name in (HALF, Path(LITERT_FILE).name) and len(paths) > 1
        if artifact.manifest.target not in TARGETS and not beside_others:
            raise EdgeError(
                f"{path}: was made for {artifact.manifest.target}, expected a file for"
                f" {' or '.join(TARGETS)}; take int8.onnx or fp32.onnx"
            )
    if len({artifact.manifest.checkpoint_sha256 for artifact in artifacts}) > 1:
        raise EdgeError(
            f"{source}: holds files of different weights; export and quantize again:"
            " python -m export.onnx"
        )
    return artifacts


def _choose(folder: Path) -> list[Path]:
    """int8.onnx, what computes in FP32 (the smaller file), and for GPUs what computes in FP16."""
    light = folder / "fp16.onnx"
    paths = [folder / "int8.onnx", light if light.is_file() else folder / "fp32.onnx"]
    for path, command in zip(paths, ("quantize.int8", "export.onnx"), strict=True):
        if not path.is_file():
            raise EdgeError(f"{path}: not found. Create it with: python -m {command}")
    half = folder / HALF
    return [*paths, half] if half.is_file() else paths


def _lite_file(source: Path) -> Path:
    path = (source if source.is_dir() else source.parent) / LITERT_FILE
    if not path.is_file():
        raise EdgeError(f"{path}: not found. Create it with: python -m export.litert")
    return path


def _measure(artifact: Artifact) -> Measurement:
    """The fidelity here, in ONNX Runtime; EdgeError with status 3 if the file drifts already."""
    with open_backend("onnxruntime", artifact) as runner:
        verdict = measure(runner, artifact)
        if not verdict.passed:
            raise EdgeError(describe_failure(artifact, runner.name, verdict), EXIT_DRIFT)
        return Measurement.of(verdict.fidelity, runner.name, runner.version, emulated=True)


def _content(artifacts: Sequence[Artifact]) -> dict[str, bytes]:
    """The page, the models and the detector, by their place in the site."""
    content = {
        path.relative_to(PAGE).as_posix(): read_bytes(path, MAX_ARTIFACT_BYTES)
        for path in sorted(PAGE.rglob("*"))
        if path.is_file() and path.name != "index.html"
    }
    for artifact in artifacts:
        name = f"model/{artifact.path.name}"
        content[name] = artifact.model
        content[f"{name}.json"] = read_bytes(manifest_path(artifact.path), MAX_ARTIFACT_BYTES)
    content["model/probes.json"] = encode_probes(artifacts[0])
    content["detector/centerface.onnx"] = detector_model()
    return content


def encode_probes(artifact: Artifact) -> bytes:
    """The probes as JSON: the images are uint8 RGB, in base64."""
    probes = drift.decode_probes(artifact.probes, str(artifact.path))
    return json.dumps(
        {
            "names": probes.names,
            "faces": probes.faces,
            "lr_side": probes.lr.shape[1],
            "sr_side": probes.sr.shape[1],
            "lr": base64.b64encode(probes.lr.tobytes()).decode(),
            "sr": base64.b64encode(probes.sr.tobytes()).decode(),
        }
    ).encode()


def _index(manifest_sha256: str) -> bytes:
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    return page.replace("{{manifest_sha256}}", manifest_sha256).encode()


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    if arguments.serve is None or arguments.overwrite or not (out / MANIFEST).is_file():
        with Steps() as steps:
            site = build(
                out,
                arguments.artifact,
                arguments.npm_tarball,
                arguments.overwrite,
                arguments.litert,
                steps,
            )
        if arguments.json:
            print(json.dumps(asdict(site)), flush=True)
        else:
            print(_describe(site), flush=True)
    if arguments.serve is not None:
        serve(out, arguments.serve)
    return 0


def _describe(site: Site) -> str:
    return (
        f"{site.artifact}: {site.files} files, {site.bytes / 1e6:.1f} MB, {site.model};"
        f" {site.precision} is {site.fidelity_db:.1f} dB to FP32 in ONNX Runtime here\n"
        f"python -m export.web --serve --out {site.artifact}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.web",
        description="Make a static web page that upscales faces in the browser, on the device.",
    )
    parser.add_argument("--out", default="site", metavar="DIR", help="the folder (default: site)")
    parser.add_argument(
        "--artifact",
        metavar="F_OR_DIR",
        help=f"an ONNX file or a folder of them (default: artifacts/{DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--litert",
        action="store_true",
        help=f"offer LiteRT.js, too, which reads {LITERT_FILE} (python -m export.litert)",
    )
    parser.add_argument(
        "--npm-tarball",
        nargs="+",
        default=(),
        metavar="F",
        help="where npm cannot be reached: the packages that it names",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the site that is there")
    parser.add_argument(
        "--serve",
        nargs="?",
        type=int,
        const=PORT,
        metavar="PORT",
        help=f"serve the folder on 127.0.0.1 (default port: {PORT}); it is made first if missing",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
