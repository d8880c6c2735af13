"""`python -m runtime.infer`: what it writes, what it says, what it loads."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_artifact
from runtime import infer, manifest
from runtime.image import decode_image, read_image, upscale_bicubic, write_image
from runtime.media import arguments
from runtime.session import open_session

ROOT = Path(__file__).parent.parent
MODULE = [sys.executable, "-m", "runtime.infer"]


@pytest.fixture
def folder(tmp_path, artifact):
    """Where faces lie and ./artifacts is found: two faces, one of them in a folder below."""
    for name, pixels in zip(("a.png", "sub/b.jpg"), tiny_artifact.faces(2), strict=True):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "faces"


def run(*arguments):
    return infer.main([str(argument) for argument in arguments])


def assert_one_line(said, message):
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


def images(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("[!.]*_sr.*"))


def test_a_face_is_written_beside_it(face, artifact, capsys):
    assert run(face, "--artifact", artifact) == 0
    with open_session(artifact) as session:
        expected = session.upscale(read_image(face))
    assert np.array_equal(read_image(face.with_name("face_sr.png")), expected)
    said = capsys.readouterr()
    assert said.err == ""
    assert "100.0 dB to FP32 on the probes, at least 80.0" in said.out
    assert "face.png -> " in said.out


def test_json_is_one_object(face, artifact, capsys):
    assert run(face, "--artifact", artifact, "--json") == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    (result,) = report["results"]
    assert result.pop("ms") > 0
    assert result == {
        "input": str(face),
        "output": str(face.with_name("face_sr.png")),
        "faces": 1,
        "error": None,
        "kind": "face",
        "scale": None,
        "left_alone": 0,
        "boxes": [],
        "skipped": False,
        "status": 0,
        "sound": None,
        "note": None,
    }
    assert report["artifact"] == str(artifact)
    assert (report["inputs"], report["faces"], report["failed"], report["status"]) == (1, 1, 0, 0)
    assert (report["backend"], report["precision"]) == ("onnxruntime", "fp32")
    assert (report["fidelity_db"], report["limit_db"]) == (100, 80)
    assert report["verdict_remembered"] is False
    assert said.err == ""


def test_without_an_artifact_the_one_in_artifacts_is_taken(face, artifact, monkeypatch, capsys):
    monkeypatch.chdir(face.parent)
    assert run("face.png") == 0
    assert "artifacts/aminet-edge/fp32.onnx (fp32) in onnxruntime" in capsys.readouterr().out


def test_a_folder_keeps_its_tree(folder, artifact, tmp_path):
    assert run(folder, "--artifact", artifact, "--out", tmp_path / "out") == 0
    assert images(tmp_path / "out") == ["a_sr.png", "sub/b_sr.png"]


def test_results_are_not_enlarged_again(folder, artifact):
    for _ in range(2):
        assert run(folder, "--artifact", artifact) == 0
        assert images(folder) == ["a_sr.png", "sub/b_sr.png"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_out_with_a_suffix_is_a_file(face, artifact, tmp_path, suffix):
    assert run(face, "--artifact", artifact, "--out", tmp_path / "new" / f"x{suffix}") == 0
    assert read_image(tmp_path / "new" / f"x{suffix}").shape == (128, 128, 3)


def test_out_without_a_suffix_is_a_folder(face, artifact, tmp_path):
    assert run(face, "--artifact", artifact, "--out", tmp_path / "new") == 0
    assert images(tmp_path / "new") == ["face_sr.png"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_its_own_older_result_is_replaced(face, artifact, suffix):
    out, before = face.with_name(f"result{suffix}"), b""
    for _ in range(2):
        Image.fromarray(255 - read_image(face)).save(face)
        assert run(face, "--artifact", artifact, "--out", out) == 0
        assert out.read_bytes() != before
        before = out.read_bytes()


@pytest.mark.parametrize("again", [(), ("--overwrite",)])
def test_a_file_of_the_user_is_replaced_only_when_asked(face, artifact, again, capsys):
    older = face.with_name("face_sr.png")
    older.write_bytes(b"old")
    assert run(face, "--artifact", artifact, *again) == (0 if again else 1)
    if again:
        assert read_image(older).shape == (128, 128, 3)
    else:
        assert_one_line(capsys.readouterr(), "face_sr.png: is already a file, and no result of")
        assert older.read_bytes() == b"old"


def test_a_result_of_another_input_is_replaced_only_when_asked(face, artifact, capsys):
    """z.jpg, then z.png in a second call: both become z_sr.png."""
    other = face.with_suffix(".bmp")
    Image.fromarray(255 - read_image(face)).save(other)
    assert run(face, "--artifact", artifact) == 0
    first = face.with_name("face_sr.png").read_bytes()
    capsys.readouterr()
    assert run(other, "--artifact", artifact) == 1
    assert_one_line(capsys.readouterr(), "face_sr.png: is already the result of another input")
    assert face.with_name("face_sr.png").read_bytes() == first
    assert run(other, "--artifact", artifact, "--overwrite") == 0
    assert face.with_name("face_sr.png").read_bytes() != first


@pytest.mark.parametrize("again", [(), ("--overwrite",)])
def test_two_folders_with_the_same_names_and_one_out(tmp_path, artifact, again, capsys):
    for name, pixels in zip(("a", "b"), tiny_artifact.faces(2), strict=True):
        write_image(tmp_path / name / "x.png", pixels)
    out = tmp_path / "out"
    assert run(tmp_path / "a", tmp_path / "b", "--out", out, "--artifact", artifact, *again) == 1
    assert "x_sr.png: is already the result of another input" in capsys.readouterr().err
    with open_session(artifact) as session:
        expected = session.upscale(tiny_artifact.faces(2)[0])
    assert np.array_equal(read_image(out / "x_sr.png"), expected)


def test_two_files_of_a_folder_with_one_result(folder, artifact, capsys):
    Image.fromarray(tiny_artifact.faces(1)[0]).save(folder / "a.bmp")
    assert run(folder, "--artifact", artifact, "--json") == 1
    results = json.loads(capsys.readouterr().out)["results"]
    refused = ["would both be written to" in (result["error"] or "") for result in results]
    assert refused == [False, True, False]


def test_a_large_face_needs_reduce(face, artifact, capsys):
    Image.fromarray(upscale_bicubic(read_image(face))).save(face)
    assert run(face, "--artifact", artifact, "--mode", "face") == 1
    assert "face.png: is 128x128, expected a face of 16 to 32 px; --reduce" in (
        capsys.readouterr().err
    )
    assert run(face, "--artifact", artifact, "--reduce") == 0


def test_results_that_are_newer_are_kept(folder, artifact, tmp_path, capsys):
    def written():
        return {name: (out / name).stat().st_mtime_ns for name in images(out)}

    out = tmp_path / "out"
    assert run(folder, "--artifact", artifact, "--out", out) == 0
    capsys.readouterr()
    first = written()
    (out / "a_sr.png").unlink()
    assert run(folder, "--artifact", artifact, "--out", out, "--json") == 0
    said = capsys.readouterr()
    assert [r["skipped"] for r in json.loads(said.out)["results"]] == [False, True]
    assert written()["sub/b_sr.png"] == first["sub/b_sr.png"]
    assert run(folder, "--artifact", artifact, "--out", out) == 0
    assert "2 were done before; --overwrite makes them again" in capsys.readouterr().err
    assert run(folder, "--artifact", artifact, "--out", out, "--overwrite") == 0
    assert written()["sub/b_sr.png"] > first["sub/b_sr.png"]


@pytest.mark.parametrize("newer", ["source", "artifact"])
def test_results_older_than_what_they_are_made_of_are_made_again(folder, artifact, newer):
    assert run(folder, "--artifact", artifact) == 0
    result = folder / "a_sr.png"
    long_ago = time.time() - 1e6
    os.utime(result, (long_ago, long_ago))
    os.utime(folder / "a.png" if newer == "artifact" else artifact, (1, 1))
    assert run(folder, "--artifact", artifact) == 0
    assert result.stat().st_mtime > long_ago + 1


def test_a_glob_is_every_picture_that_it_matches(folder, artifact, tmp_path, capsys):
    assert run(f"{folder}/**/*.*", "--artifact", artifact, "--out", tmp_path / "out") == 0
    assert images(tmp_path / "out") == ["a_sr.png", "b_sr.png"]
    assert run(f"{folder}/*.gif", "--artifact", artifact) == 1
    assert "*.gif: matches nothing; check the pattern" in capsys.readouterr().err
    assert run(f"{tmp_path}/out/*", "--artifact", artifact) == 1
    assert "/*: matches only results (*_sr); check the pattern" in capsys.readouterr().err


def test_what_a_folder_holds_besides_is_counted_and_named(folder, artifact, capsys):
    for name in ("raw.cr2", "b.cr2", "notes.txt", ".hidden.txt"):
        (folder / name).touch()
    assert run(folder, "--artifact", artifact) == 0
    assert "not looked at, no images or videos by their names: 2 .cr2, 1 .txt\n" in (
        capsys.readouterr().err
    )
    assert run(folder, "--artifact", artifact, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ignored"] == {".cr2": 2, ".txt": 1}


@pytest.mark.parametrize("suffix", [".tiff", ".bmp", ".gif", ".jfif", ".avif", ".heic"])
def test_every_format_that_pillow_reads_is_taken_from_a_folder(tmp_path, artifact, suffix):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    (tmp_path / "in").mkdir()
    kind = {"format": "JPEG"} if suffix == ".jfif" else {}
    Image.fromarray(tiny_artifact.faces(1)[0]).save(tmp_path / "in" / f"x{suffix}", **kind)
    assert run(tmp_path / "in", "--artifact", artifact) == 0
    assert images(tmp_path / "in") == ["x_sr.png"]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("x.webp", "x.webp: would be 16,800x512, and WEBP holds at most 16,383 px a side"),
        ("x.gif", "x.gif: expected a name that ends in .png or .jpg or .jpeg or .webp"),
        ("x.mp4", "x.mp4: expected a name that ends in"),
    ],
)
def test_what_a_format_cannot_hold_is_said_before_the_work(
    tmp_path, artifact, out, message, monkeypatch, capsys
):
    monkeypatch.setattr("runtime.media.detector.Detector.find", None)  # it is not asked
    Image.new("RGB", (2100, 64)).save(tmp_path / "strip.png")
    arguments = ["--artifact", artifact, "--out", tmp_path / out]
    assert run(tmp_path / "strip.png", "--mode", "photo", *arguments) == 1
    assert_one_line(capsys.readouterr(), message)
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize("arguments", [("--mode", "face"), ()])
def test_a_scale_for_a_face_is_refused(face, artifact, arguments, capsys):
    status = run(face, "--artifact", artifact, "--scale", "4", *arguments)
    assert status == (2 if arguments else 1)
    assert "--scale is for photos and videos" in capsys.readouterr().err


def test_shards_share_the_files_of_a_folder(tmp_path, artifact):
    for i, pixels in enumerate(tiny_artifact.faces(5)):
        write_image(tmp_path / "in" / f"{i}.png", pixels)
    made = []
    for number in (1, 2):
        out = tmp_path / f"out{number}"
        arguments = ["--out", out, "--shard", f"{number}/2", "--artifact", artifact]
        assert run(tmp_path / "in", *arguments) == 0
        made.append(images(out))
    assert made == [["0_sr.png", "2_sr.png", "4_sr.png"], ["1_sr.png", "3_sr.png"]]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "x/2", "1/0"])
def test_a_shard_that_is_none_is_a_usage_error(face, artifact, shard, capsys):
    assert run(face, "--artifact", artifact, "--shard", shard) == 2
    assert_one_line(capsys.readouterr(), f"--shard {shard}: expected I/N, from 1/N to N/N")


def test_json_lines_come_one_by_one(folder, artifact, capsys):
    (folder / "broken.png").write_bytes(b"text")
    assert run(folder, "--artifact", artifact, "--json-lines") == 1
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["faces"] for result in results] == [1, 0, 1]


@pytest.mark.parametrize("out", [[], ["--out", "-"]])
def test_standard_input_becomes_standard_output(face, artifact, out):
    command = [*MODULE, "-", "--artifact", artifact, "--backend", "onnxruntime", *out]
    ended = subprocess.run(command, cwd=ROOT, input=face.read_bytes(), capture_output=True)
    assert ended.returncode == 0
    with open_session(artifact) as session:
        expected = session.upscale(read_image(face))
    assert np.array_equal(decode_image(ended.stdout, "stdout"), expected)
    assert b"- -> -" in ended.stderr


def test_a_file_does_not_become_standard_output(face, artifact, capsys):
    assert run(face, "--artifact", artifact, "--out", "-") == 2
    assert_one_line(capsys.readouterr(), "--out -: is for -, standard input, alone")


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same(tmp_path, artifact, workers, capsys):
    faces, names = tiny_artifact.faces(30), [f"{i:02}" for i in range(30)]
    for name, pixels in zip(names, faces, strict=True):
        write_image(tmp_path / "in" / f"{name}.png", pixels)
    assert run(tmp_path / "in", "--artifact", artifact, "--workers", workers, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["workers"] == workers
    assert [Path(each["input"]).stem for each in report["results"]] == names
    with open_session(artifact) as session:
        expected = session.upscale(faces[29])
    assert np.abs(read_image(tmp_path / "in" / "29_sr.png").astype(int) - expected).max() <= 1


def test_a_file_whose_name_looks_like_a_glob_is_that_file(face, artifact):
    odd = face.rename(face.with_name("f[1].png"))
    assert run(odd, "--artifact", artifact) == 0
    assert odd.with_name("f[1]_sr.png").exists()


def test_results_come_in_order_whatever_fails_between(tmp_path, artifact, capsys):
    many = tmp_path / "many"
    many.mkdir()
    for i, pixels in enumerate(tiny_artifact.faces(40)):
        if i % 7 == 3:
            (many / f"{i:02}.png").write_bytes(b"broken")
        else:
            Image.fromarray(pixels).save(many / f"{i:02}.png")
    assert run(many, "--artifact", artifact, "--json") == 1
    results = json.loads(capsys.readouterr().out)["results"]
    assert [Path(result["input"]).stem for result in results] == [f"{i:02}" for i in range(40)]
    assert [bool(result["error"]) for result in results] == [i % 7 == 3 for i in range(40)]
    with open_session(artifact) as session:
        for i in (0, 9, 39):
            expected = session.upscale(read_image(many / f"{i:02}.png"))
            written = read_image(many / f"{i:02}_sr.png")
            assert np.abs(expected.astype(int) - written).max() <= 1


def test_ctrl_c_leaves_what_is_finished(tmp_path, artifact):
    """Of a process that does not ignore it, as those do that a shell starts in the background."""
    many, out = tmp_path / "many", tmp_path / "out"
    write_image(many / "0.png", tiny_artifact.faces(1)[0])
    for i in range(1, 5000):
        (many / f"{i}.png").hardlink_to(many / "0.png")
    command = [*MODULE, many, "--out", out, "--artifact", artifact, "--backend", "onnxruntime"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not images(out):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: interrupted after ")
    assert all(read_image(out / name).shape == (128, 128, 3) for name in images(out))
    assert not list(out.glob(".*"))


def test_one_of_many_inputs_fails(folder, artifact, capsys):
    (folder / "broken.png").write_bytes(b"text")
    assert run(folder, folder / "missing.png", "--artifact", artifact, "--json") == 1
    said = capsys.readouterr()
    results = json.loads(said.out)["results"]
    assert [bool(result["output"]) for result in results] == [True, False, True, False]
    assert [line.partition(": ")[0] for line in said.err.splitlines()] == ["error", "error"]
    assert images(folder) == ["a_sr.png", "sub/b_sr.png"]


def names(*names):
    return lambda folder: [folder / name for name in names]


@pytest.mark.parametrize(
    ("inputs", "out", "problem"),
    [
        (names("a.png", "a.png"), None, "would both be written"),
        (names("a.png", "a.webp"), None, "would both be written"),
        (names("a.png", "sub/a.png"), "out", "would both be written"),
        (names("a.png", "."), None, "would both be written"),
        (names("a.png", "a_sr.png"), None, "a_sr.png: is an input, and would be overwritten"),
        (names("a.png"), "faces/a.png", "a.png: is an input, and would be overwritten"),
        (names("a.png", "sub/b.jpg"), "x.png", "x.png: names one file for several"),
        (names("."), "x.png", "x.png: names one file for several"),
    ],
)
def test_outputs_that_would_collide_are_refused(folder, artifact, capsys, inputs, out, problem):
    place = ["--out", folder.parent / out] if out else []
    before = sorted(folder.rglob("*"))
    assert run(*inputs(folder), *place, "--artifact", artifact) == 1
    said = capsys.readouterr().err
    assert problem in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_a_demanded_precision(face, artifact, capsys):
    assert run(face, "--artifact", artifact, "--require-precision", "fp32") == 0
    assert run(face, "--artifact", artifact, "--require-precision", "int8") == 6
    assert "runs as fp32, --require-precision says int8" in capsys.readouterr().err


def test_precision_is_what_is_computed_in_not_what_is_stored(face, artifact):
    tiny_artifact.write_artifact(
        artifact.parent, "fp16.onnx", executes_as="fp32, with weights rounded to fp16"
    )
    fp16 = artifact.with_name("fp16.onnx")
    assert run(face, "--artifact", fp16, "--require-precision", "fp16") == 6
    assert run(face, "--artifact", fp16, "--require-precision", "fp32") == 0


def test_fallback_is_said(face, artifact, capsys):
    int8 = tiny_artifact.write_artifact(artifact.parent, "int8.onnx")
    int8.write_bytes(b"damaged")
    assert run(face, "--artifact", int8) == 1
    assert run(face, "--artifact", int8, "--fallback") == 0
    assert "passed over: " in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["tensorrt"])
def test_a_backend_that_is_not_here(face, artifact, backend, capsys):
    assert run(face, "--artifact", artifact, "--backend", backend) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert f"--backend {backend} needs. Create one with: python -m export.tens" in line


@pytest.mark.parametrize("arguments", [[], ["x.png", "--nonsense"], ["x.png", "--backend", "x"]])
def test_usage_errors(artifact, monkeypatch, arguments):
    monkeypatch.chdir(artifact.parent.parent.parent)
    try:
        status = run(*arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2


def test_many_results_are_counted(tmp_path, artifact, capsys):
    (tmp_path / "many").mkdir()
    for i, pixels in enumerate(tiny_artifact.faces(21)):
        Image.fromarray(pixels).save(tmp_path / "many" / f"{i}.png")
    assert run(tmp_path / "many", "--artifact", artifact) == 0
    said = capsys.readouterr().out.splitlines()
    assert sum(" -> " in line for line in said) == 20
    assert re.fullmatch(r"21 faces of 21 inputs in [\d.]+ s, [\d.]+ faces/s, in .*/many", said[-2])


def test_progress_is_told_after_each_face(folder, artifact):
    told = []
    options = infer.InferOptions(artifact=str(artifact))
    infer.infer([str(folder)], options, lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_neither_torch_nor_onnx_is_loaded(face, artifact):
    program = (
        "import sys\n"
        "from runtime import infer\n"
        "status = infer.main(sys.argv[1:])\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert {'numpy', 'PIL', 'onnxruntime'} <= loaded\n"
        "print(sorted(loaded & {'torch', 'onnx', 'onnxscript', 'openvino', 'scipy'}))\n"
        "sys.exit(status)\n"
    )
    command = [sys.executable, "-c", program, face, "--artifact", artifact]
    command += ["--backend", "onnxruntime"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("\n[]\n")
    assert face.with_name("face_sr.png").exists()


def test_the_precisions_to_require_are_those_of_manifests():
    assert arguments.PRECISIONS == manifest.PRECISIONS


def test_help_loads_no_numpy():
    program = (
        "import sys\n"
        "from runtime import infer\n"
        "try: infer.main(['--help'])\n"
        "except SystemExit: print(sorted({'numpy', 'PIL'} & set(sys.modules)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.endswith("[]\n")


def test_a_kill_in_the_middle_of_a_folder_leaves_only_whole_faces(tmp_path, artifact):
    many = tmp_path / "many"
    many.mkdir()
    for i, pixels in enumerate(tiny_artifact.faces(120)):
        Image.fromarray(pixels).save(many / f"{i}.png")
    command = [*MODULE, many, "--artifact", artifact]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(images(many)) < 5:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    written = images(many)
    assert 0 < len(written) < 120
    assert all(read_image(many / name).shape == (128, 128, 3) for name in written)
    assert run(many, "--artifact", artifact) == 0
    assert len(images(many)) == 120


@pytest.mark.soak
def test_cold_start_with_a_remembered_verdict(face, edge_artifact):
    """From process start to the face written and the process gone; the best of ten."""
    command = [*MODULE, face, "--artifact", edge_artifact]
    seconds = []
    for _ in range(11):
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ)
        seconds.append(time.perf_counter() - started)
    assert min(seconds[1:]) <= 0.5
