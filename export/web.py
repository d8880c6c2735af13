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
from export.web_artifacts import BEST, choose_source, measure_artifacts, read_artifacts
from export.web_manifest import LITERT_FILE, describe_site, runtimes
from export.web_server import PORT, serve
from runtime import drift
from runtime.artifact import MAX_ARTIFACT_BYTES, Artifact
from runtime.atomic import read_bytes, sha256_bytes, write_bytes, writing_folder
from runtime.errors import EdgeError, run_command
from runtime.manifest import Measurement, manifest_path
from runtime.media.detector import detector_model
from runtime.places import DEFAULT_MODEL
from runtime.progress import Progress, Steps

MANIFEST = "site.json"
PAGE = Path(__file__).with_name("site")


@dataclass(frozen=True)
class Site:
    """The folder, and the fidelity of what it offers first, measured in ONNX Runtime as a proxy.

    `lr_side`: px of the faces that the model reads. `chosen`: why it is this model.
    """

    artifact: str
    model: str
    lr_side: int
    chosen: str
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

    `artifact` is an ONNX file or a folder of them, else that of the model that runtime.infer takes
    for photos; with `litert` its litert/int8.tflite is offered as well. `step` hears what is being
    done. Raises EdgeError: status 3 if one drifts on the probes, 5 without the face detector.
    """
    out = Path(out)
    _refuse_taken(out, overwrite)
    source, chosen = choose_source(artifact)
    artifacts = read_artifacts(source, litert)
    measured = measure_artifacts(artifacts, step)
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
        lr_side=first.manifest.lr_side,
        chosen=chosen,
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
    there = (out / MANIFEST).is_file()
    if there and arguments.serve is not None and not arguments.overwrite:
        if arguments.artifact or arguments.litert:
            raise EdgeError(f"{out}: exists and would be served as it is; add --overwrite")
    else:
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
        serve(out, arguments.serve, _model_of(out))
    return 0


def _model_of(site: Path) -> str:
    """The model of a site that is there; EdgeError if its manifest is damaged."""
    path = site / MANIFEST
    try:
        return str(json.loads(read_bytes(path, MAX_ARTIFACT_BYTES))["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeError(f"{path}: is damaged; make the site again: --overwrite") from error


def _describe(site: Site) -> str:
    return (
        f"{site.artifact}: {site.files} files, {site.bytes / 1e6:.1f} MB;"
        f" {site.precision} is {site.fidelity_db:.1f} dB to FP32 in ONNX Runtime here\n"
        f"{site.model}, faces of {site.lr_side} px: {site.chosen}\n"
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
        help=f"an ONNX file or a folder of them (default: artifacts/{BEST}, else {DEFAULT_MODEL})",
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
