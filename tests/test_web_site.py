"""The site's folder: complete, described by its manifest, and written as a whole or not at all."""

import base64
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import tiny_artifact
from benchmarks.harness.browser_peer import MODELS
from export import npm, web, web_manifest
from export.web_artifacts import choose_source
from export.web_server import make_server
from runtime.atomic import sha256_bytes, sha256_file
from runtime.drift import read_probes
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_MISSING, EXIT_USAGE
from runtime.manifest import read_manifest, write_manifest
from runtime.media import photo
from runtime.media.models import ModelOptions, Models

ROOT = Path(__file__).parent.parent
PARTS = [name.rpartition("/")[2] for name in web_manifest.ONNXRUNTIME.members]


@pytest.fixture(scope="module")
def tarball(tmp_path_factory):
    """A package with the names of ONNX Runtime Web's files."""
    path = tmp_path_factory.mktemp("npm") / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in PARTS:
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


@pytest.fixture(autouse=True)
def expected_package(tarball, monkeypatch):
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    runtime = web_manifest.ONNXRUNTIME
    package = replace(runtime.package, integrity=f"sha512-{digest}")
    monkeypatch.setattr(web_manifest, "ONNXRUNTIME", replace(runtime, package=package))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    int8 = tiny_artifact.build(tiny_artifact.INT8, tiny_artifact.quantized_weights())
    tiny_artifact.write_artifact(folder, "fp32.onnx", psnr_y=27.0)
    tiny_artifact.write_artifact(folder, "int8.onnx", int8, psnr_y=27.0)
    return folder


@pytest.fixture
def artifacts(source, tmp_path):
    """A folder of int8.onnx and fp32.onnx, to be changed."""
    return Path(shutil.copytree(source, tmp_path / "artifacts"))


@pytest.fixture
def run(artifacts, tarball, tmp_path, capsys):
    """The command: its status and the lines on stderr; the site goes to tmp_path/site."""

    def call(*more):
        where = ["--out", str(tmp_path / "site"), "--npm-tarball", str(tarball)]
        artifact = [] if "--artifact" in more else ["--artifact", str(artifacts)]
        status = web.main([*where, *artifact, *map(str, more)])
        call.out, err = capsys.readouterr()
        return status, err.splitlines()

    return call


def test_the_site_is_complete_and_its_manifest_describes_it(run, artifacts, tmp_path):
    status, _ = run("--json")
    site = tmp_path / "site"
    assert status == 0
    made = json.loads(run.out)
    assert (made["precision"], made["model"]) == ("int8", "tiny")
    assert (made["lr_side"], made["chosen"]) == (16, "named by --artifact")
    assert made["fidelity_db"] > 50
    manifest = json.loads((site / "site.json").read_bytes())
    files = {
        path.relative_to(site).as_posix(): {
            "sha256": sha256_file(path),
            "bytes": path.stat().st_size,
        }
        for path in site.rglob("*")
        if path.is_file() and path.name not in ("index.html", "site.json")
    }
    assert manifest["files"] == files
    assert made["files"] == len(files) + 2
    assert f'data-manifest="{sha256_file(site / "site.json")}"' in (site / "index.html").read_text()
    assert {f"onnxruntime-web-1.30.0/{name}" for name in PARTS} < set(files)
    content = {name: value for name, value in manifest.items() if name != "digest"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert manifest["digest"] == sha256_bytes(canonical)
    assert (manifest["target"], manifest["lr_side"], manifest["sr_side"]) == ("web", 16, 128)
    assert manifest["tools"]["onnxruntime-web"] == "1.30.0"
    assert [each["emulated"] for each in manifest["measured_on"]] == [True, True]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("aminet-real", "what runtime.infer takes for photos; --artifact takes another model"),
        ("aminet-edge", "artifacts/aminet-real, which is made for photos, is not here: python -m"
         " export.onnx --model aminet-real"),
    ],
)  # fmt: skip
def test_the_page_has_the_model_that_infer_takes_for_photos(
    artifact, artifact_64, tmp_path, monkeypatch, model, why
):
    monkeypatch.chdir(tmp_path)
    if model != "aminet-real":
        shutil.rmtree(artifact_64.parent)
    with Models(ModelOptions(), print) as models:
        assert models.for_photos().artifact.parent == Path("artifacts", model)
    assert choose_source(None) == (Path("artifacts", model), why)


def test_the_models_and_their_manifests_are_the_artifacts(run, artifacts, tmp_path):
    run()
    for name in ("int8.onnx", "int8.onnx.json", "fp32.onnx", "fp32.onnx.json"):
        assert (tmp_path / "site/model" / name).read_bytes() == (artifacts / name).read_bytes()
    probes = json.loads((tmp_path / "site/model/probes.json").read_bytes())
    expected = read_probes(artifacts / "probes.npz")
    assert probes["names"] == list(expected.names)
    assert probes["faces"] == expected.faces
    assert base64.b64decode(probes["lr"]) == expected.lr.tobytes()
    assert base64.b64decode(probes["sr"]) == expected.sr.tobytes()


@pytest.mark.parametrize(
    ("names", "routes"),
    [
        (
            ["int8", "fp32"],
            ["int8 wasm-threads", "int8 wasm", "fp32 webgpu", "fp32 wasm-threads spare",
             "fp32 wasm spare"],
        ),
        (
            ["int8", "fp32", "fp16", "fp16-trt"],
            ["int8 wasm-threads", "int8 wasm", "fp16 webgpu", "fp32 webgpu",
             "fp32 wasm-threads spare", "fp32 wasm spare"],
        ),
        (["fp32"], ["fp32 webgpu", "fp32 wasm-threads", "fp32 wasm"]),
        (["int8"], ["int8 wasm-threads", "int8 wasm"]),
    ],
)  # fmt: skip
def test_what_is_tried_follows_from_the_files(run, artifacts, tmp_path, names, routes):
    for name, executes_as in {
        "fp16": "fp32, weights in FP16",
        "fp16-trt": "fp32 in ONNX Runtime",
    }.items():
        if name in names:
            facts = {"precision": "fp16", "executes_as": executes_as, "psnr_y": 27.0}
            facts["target"] = "tensorrt" if name == "fp16-trt" else "cpu"
            tiny_artifact.write_artifact(artifacts, f"{name}.onnx", **facts)
    run("--artifact", artifacts if len(names) > 1 else artifacts / f"{names[0]}.onnx")
    manifest = json.loads((tmp_path / "site/site.json").read_bytes())
    found = [
        f"{route['precision']} {route['provider']}{' spare' if route['spare'] else ''}"
        for route in manifest["routes"]
    ]
    assert found == routes


def test_a_site_that_exists_is_replaced_only_when_told(run, tmp_path):
    site = tmp_path / "site"
    assert run()[0] == 0
    (site / "kept.txt").write_text("kept")
    assert run() == (EXIT_ERROR, [f"error: {site}: exists; give another --out, or --overwrite"])
    assert (site / "kept.txt").exists()
    assert run("--overwrite")[0] == 0
    assert not (site / "kept.txt").exists()
    assert os.listdir(tmp_path / "site") != []
    assert sorted(os.listdir(tmp_path)) == ["artifacts", "site"]


def test_another_folder_is_never_replaced(run, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.txt").write_text("ten years")
    status, (line,) = run("--overwrite")
    assert status == EXIT_ERROR
    assert "exists and is not a site of this command; give another --out" in line
    assert (tmp_path / "site" / "thesis.txt").read_text() == "ten years"


def no_probes(folder):
    (folder / "probes.npz").unlink()


def other_probes(folder):
    shutil.copy(folder / "fp32.onnx", folder / "probes.npz")


def for_tensorrt(folder):
    manifest = read_manifest(folder / "int8.onnx")
    write_manifest(folder / "int8.onnx", replace(manifest, target="tensorrt"))


def of_other_weights(folder):
    manifest = read_manifest(folder / "int8.onnx")
    write_manifest(folder / "int8.onnx", replace(manifest, checkpoint_sha256="0" * 64))


def damaged(folder):
    path = folder / "int8.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def drifted(folder):
    weights = tiny_artifact.quantized_weights()
    weights["local_weight"] = weights["local_weight"] * 1.2
    model = tiny_artifact.build(tiny_artifact.INT8, weights)
    tiny_artifact.write_artifact(folder, "int8.onnx", model, psnr_y=27.0)


@pytest.mark.parametrize(
    ("spoil", "status", "expected"),
    [
        (no_probes, EXIT_ERROR, "probes.npz: "),
        (other_probes, EXIT_ERROR, "probes.npz: are not the probes of int8.onnx"),
        (for_tensorrt, EXIT_ERROR, "was made for tensorrt, expected a file for any or cpu"),
        (of_other_weights, EXIT_ERROR, "holds files of different weights"),
        (damaged, EXIT_ERROR, "int8.onnx: is not the file that its manifest describes"),
        (drifted, EXIT_DRIFT, "int8.onnx: drifts from FP32"),
        (lambda folder: (folder / "int8.onnx").unlink(), EXIT_ERROR,
         "python -m quantize.int8 --artifact "),
        (shutil.rmtree, EXIT_ERROR, "artifacts: not found. Create it with: python -m export.onnx"),
    ],
)  # fmt: skip
def test_artifacts_that_will_not_do_are_named(run, artifacts, tmp_path, spoil, status, expected):
    spoil(artifacts)
    found, (line,) = run()
    assert found == status
    assert expected in line
    assert not (tmp_path / "site").exists()


def test_the_file_for_gpus_alone_is_refused(run, artifacts):
    path = tiny_artifact.write_artifact(
        artifacts, "fp16-trt.onnx", precision="fp16", target="tensorrt", psnr_y=27.0
    )
    status, (line,) = run("--artifact", path)
    assert status == EXIT_ERROR
    assert "fp16-trt.onnx: was made for tensorrt" in line


def test_what_is_no_onnx_file_is_named(run, artifacts):
    status, (line,) = run("--artifact", artifacts / "probes.npz")
    assert status == EXIT_ERROR
    assert "probes.npz: is no ONNX file, expected int8.onnx, fp32.onnx or a folder" in line


def test_without_npm_the_old_site_stays(artifacts, tarball, tmp_path, monkeypatch, capsys):
    site = tmp_path / "site"
    arguments = ["--out", str(site), "--artifact", str(artifacts)]
    assert web.main([*arguments, "--npm-tarball", str(tarball)]) == 0
    before = sha256_file(site / "site.json")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1")
    assert web.main([*arguments, "--overwrite"]) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: http://127.0.0.1:1/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz")
    assert "--npm-tarball" in line
    assert sha256_file(site / "site.json") == before


def test_without_the_detector_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr("runtime.media.centerface.find_file", lambda: None)
    status, (line,) = run()
    assert status == EXIT_MISSING
    assert "python -m runtime.media.fetch" in line


def test_a_build_that_is_interrupted_leaves_nothing(run, tmp_path, monkeypatch):
    assert run()[0] == 0
    monkeypatch.setattr(web, "write_bytes", interrupt)
    assert run("--overwrite")[0] == 130
    assert sorted(os.listdir(tmp_path)) == ["artifacts", "site"]
    assert (tmp_path / "site/site.json").exists()


def interrupt(path, data):
    raise KeyboardInterrupt


def test_usage_errors_have_their_status(capsys):
    with pytest.raises(SystemExit) as left:
        web.main(["--serve", "many"])
    assert left.value.code == EXIT_USAGE


@pytest.fixture
def served(run, tmp_path):
    assert run()[0] == 0
    with make_server(tmp_path / "site", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection(*server.server_address)
        yield connection
        connection.close()
        server.shutdown()


def test_the_server_sends_the_headers_that_threads_and_privacy_need(served):
    served.request("GET", "/")
    response = served.getresponse()
    page = response.read().decode()
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    policy = response.headers["Content-Security-Policy"]
    assert policy.removesuffix("; frame-ancestors 'none'") in page
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/app.js", 200, "text/javascript; charset=utf-8"),
        (f"/onnxruntime-web-1.30.0/{PARTS[0]}", 200, "text/javascript; charset=utf-8"),
        ("/model/int8.onnx?abc", 200, "application/octet-stream"),
        ("/model/", 404, None),
        ("/../artifacts/fp32.onnx", 404, None),
    ],
)
def test_the_server_serves_the_site_and_nothing_else(served, path, status, kind):
    served.request("GET", path)
    response = served.getresponse()
    response.read()
    assert response.status == status
    assert kind in (None, response.headers["Content-Type"])


def test_a_port_in_use_is_named(run, tmp_path, capsys):
    assert run()[0] == 0
    with make_server(tmp_path / "site", 0) as server:
        port = str(server.server_address[1])
        assert web.main(["--out", str(tmp_path / "site"), "--serve", port]) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be used (address already in use); name another: --serve PORT" in line


def test_a_site_that_is_there_is_not_served_in_the_place_of_another(run, tmp_path):
    assert run()[0] == 0
    expected = f"error: {tmp_path / 'site'}: exists and would be served as it is; add --overwrite"
    assert run("--serve", 0) == (EXIT_ERROR, [expected])


def test_serving_from_the_command_line(run, tmp_path):
    """A site that is there is served as it is."""
    assert run()[0] == 0
    command = [sys.executable, "-m", "export.web", "--out", str(tmp_path / "site"), "--serve", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        process.terminate()
    assert line.startswith("http://127.0.0.1:")
    assert line.endswith("site, tiny; Ctrl-C ends it\n")


@pytest.mark.parametrize(
    ("package", "name"),
    [
        (web_manifest.ONNXRUNTIME.package, "onnxruntime-web-1.30.0.tgz"),
        (web_manifest.LITERT.package, "core-2.5.3.tgz"),
        *((package, f"{package.name.rpartition('/')[2]}-1.0.0.tgz") for package in MODELS.values()),
    ],
)
def test_packages_are_pinned(package, name):
    assert package.integrity.startswith("sha512-")
    assert len(base64.b64decode(package.integrity.removeprefix("sha512-"))) == 64
    assert npm.Package(package.name, package.version, "").file_name == name


def test_without_the_file_for_litert_it_is_named(run, artifacts):
    status, (line,) = run("--litert")
    assert status == EXIT_ERROR
    assert "litert/int8.tflite: not found. Create it with: python -m export.litert" in line


def test_photos_have_the_same_constants_on_the_page_as_in_the_runtime():
    source = (ROOT / "export" / "site" / "photo.js").read_text()
    constants = dict(re.findall(r"^const ([A-Z_]+) = ([\d.]+);", source, re.MULTILINE))
    shared = {name for name in constants if hasattr(photo, name)}
    assert {"MIN_FACE", "MAX_FRAME", "CLEAN", "NOISY", "LEAST_TRUST"} <= shared
    assert {n: float(constants[n]) for n in shared} == {n: getattr(photo, n) for n in shared}
