"""Engines, built for real by TensorRT-RTX on the CPU; nothing here runs one."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import tiny_artifact
from export import tensorrt
from export.gate import types_of
from export.trt import build as trt_build
from export.trt import subprocess as trt_subprocess
from export.trt import worker
from export.trt.build import compile_engine, find_builder
from export.trt.options import BuildOptions
from quantize.fp16_passes import to_half
from runtime import atomic
from runtime.atomic import sha256_file
from runtime.errors import (
    EXIT_DRIFT,
    EXIT_ERROR,
    EXIT_MISSING,
    EXIT_PRECISION,
    EXIT_USAGE,
    EdgeError,
)
from runtime.manifest import manifest_path, read_manifest, write_manifest

ROOT = Path(__file__).parent.parent
SIGNED = {**tiny_artifact.quantized_weights(), "feature_zero": np.int8(0)}
RTX = BuildOptions(builder="tensorrt-rtx")


@pytest.fixture(scope="module")
def found():
    """TensorRT-RTX, which needs no GPU."""
    return find_builder(RTX)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder with fp32.onnx, fp16-trt.onnx and int8-trt.onnx of one tiny network."""
    folder = tmp_path_factory.mktemp("tiny")
    fp32 = tiny_artifact.build()
    half = to_half(onnx.load_model_from_string(fp32)).SerializeToString()
    int8 = tiny_artifact.build(tiny_artifact.INT8, SIGNED)
    tiny_artifact.write_artifact(folder, "fp32.onnx", fp32)
    tiny_artifact.write_artifact(
        folder, "fp16-trt.onnx", half, precision="fp16", executes_as="fp16", target="tensorrt"
    )
    tiny_artifact.write_artifact(
        folder, "int8-trt.onnx", int8, precision="int8", executes_as="int8", target="tensorrt"
    )
    return folder


@pytest.fixture(scope="module")
def made(sources):
    """What the command says of the three, and their engines."""
    command = [sys.executable, "-m", "export.tensorrt", "--json", "--artifact"]
    done = subprocess.run(
        [*command, *sorted(map(str, sources.glob("*.onnx")))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture
def copied(made, sources, tmp_path):
    """A copy of fp32.onnx and its engine, to be spoiled."""
    folder = tmp_path / "tiny"
    shutil.copytree(sources, folder)
    (path,) = folder.glob("trt/*/fp32.engine")
    return folder / "fp32.onnx", path


@pytest.fixture
def alone(sources, tmp_path):
    """A copy of fp32.onnx that has no engine."""
    for path in sources.glob("*.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / "fp32.onnx"


def leftovers(folder):
    """What a failed build has left that looks finished."""
    return [
        p for p in folder.rglob("*") if p.suffix in (".engine", ".part") or ".engine.j" in p.name
    ]


def test_json_has_what_the_contract_says(made):
    first = made["engines"][0]
    assert {key: made[key] for key in first} == first
    assert first["builder"] == "tensorrt-rtx"
    assert first["compute_capabilities"] == ["8.6"]
    assert first["bytes"] == Path(first["engine"]).stat().st_size
    assert first["seconds"] > 0
    assert made["failures"] == []


@pytest.mark.parametrize(
    ("name", "precision", "types"),
    [
        ("fp32", "fp32", {"CONVOLUTION": {"FLOAT": 3}}),
        ("fp16-trt", "fp16", {"CONVOLUTION": {"HALF": 3}}),
        (
            "int8-trt",
            "int8",
            {"CONVOLUTION": {"FLOAT": 3}, "QUANTIZE": {"INT8": 1}, "DEQUANTIZE": {"FLOAT": 2}},
        ),
    ],
)
def test_an_engine_has_a_manifest(made, sources, name, precision, types):
    path = sources / "trt" / "8.6-1.7.1.116" / f"{name}.engine"
    manifest, parent = read_manifest(path), read_manifest(sources / f"{name}.onnx")
    assert (manifest.precision, manifest.target) == (precision, "tensorrt")
    assert manifest.executes_as == f"{precision}, as the parsed network says; not run yet"
    assert manifest.sha256 == sha256_file(path)
    assert manifest.parent_sha256 == parent.sha256
    assert manifest.probes_sha256 == parent.probes_sha256
    assert manifest.measured_on == ()
    assert manifest.tools == {"tensorrt-rtx": "1.7.1.116"}
    assert manifest.flags["inputs"] == [["lr", "FLOAT", [-1, 3, 16, 16]]]
    assert manifest.flags["outputs"] == [["sr", "FLOAT", [-1, 3, 128, 128]]]
    assert manifest.flags["profile"] == [1, 4, 16]
    assert manifest.flags["network_types"] == types
    assert manifest.flags["engine_types"] is None  # which only a GPU can tell


def test_what_is_up_to_date_is_not_built(copied, found, monkeypatch):
    source, path = copied
    monkeypatch.setattr(trt_build, "ask", None)  # a build would fail
    before = path.stat().st_mtime_ns
    assert compile_engine(source, found, RTX).up_to_date
    assert path.stat().st_mtime_ns == before


def test_a_damaged_engine_is_built_again_to_the_same_bytes(copied, found):
    source, path = copied
    before = sha256_file(path)
    path.write_bytes(path.read_bytes()[:1000])
    assert not compile_engine(source, found, RTX).up_to_date
    assert sha256_file(path) == before


class AskedError(Exception):
    """A build was asked for."""


def other_model(source, path):
    weights = {name: 2 * value for name, value in tiny_artifact.weights().items()}
    tiny_artifact.write_artifact(source.parent, model=tiny_artifact.build(initializers=weights))


CHANGES = {
    "profile": (lambda source, path: None, replace(RTX, profile=(1, 2, 8))),
    "workspace": (lambda source, path: None, replace(RTX, workspace_mib=64)),
    "capability": (lambda source, path: None, replace(RTX, capabilities=("8.9",))),
    "no manifest": (lambda source, path: manifest_path(path).unlink(), RTX),
    "another model in its place": (other_model, RTX),
    "the engine of another file": (
        lambda source, path: [
            shutil.copy(path.with_name(f"fp16-trt.engine{end}"), f"{path}{end}")
            for end in ("", ".json")
        ],
        RTX,
    ),
}


@pytest.mark.parametrize(("change", "options"), CHANGES.values(), ids=CHANGES)
def test_any_change_asks_for_a_build(copied, found, monkeypatch, change, options):
    def ask(*_):
        raise AskedError

    source, path = copied
    change(source, path)
    monkeypatch.setattr(trt_build, "ask", ask)
    with pytest.raises(AskedError):
        compile_engine(source, found, options)


def test_another_builder_version_has_another_folder(copied, found, monkeypatch):
    source, path = copied
    monkeypatch.setattr(trt_build, "ask", lambda *_: pytest.fail("asked") if path else None)
    with pytest.raises(pytest.fail.Exception):
        compile_engine(source, replace(found, version="1.7.2"), RTX)
    assert path.is_file()


def addresses_can_be_fixed():
    command = ["cat", "/proc/self/personality"]
    done = subprocess.run(command, preexec_fn=trt_subprocess._fix_addresses, capture_output=True)
    return done.stdout.strip() == b"00040000"


def test_the_same_network_gives_the_same_bytes_wherever_it_lies(edge_artifact, tmp_path, found):
    """Of aminet-edge: its graph is large enough that the order of pointers shows."""
    if not addresses_can_be_fixed():
        pytest.skip("this kernel or container does not let a process fix its addresses")
    engines = []
    for folder in (tmp_path / "a", tmp_path / "some" / "longer path"):
        folder.mkdir(parents=True)
        for path in edge_artifact.parent.glob("*.*"):
            shutil.copy(path, folder)
        engines.append(compile_engine(folder / "fp32.onnx", found, RTX))
    assert not any(engine.up_to_date for engine in engines)
    assert len({engine.sha256 for engine in engines}) == 1


def test_two_builds_at_once_build_once(alone):
    command = [sys.executable, "-m", "export.tensorrt", "--json", "--artifact", str(alone)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    said = [json.loads(process.communicate()[0]) for process in both]
    assert sorted(one["up_to_date"] for one in said) == [False, True]
    assert len({one["sha256"] for one in said}) == 1
    (path,) = alone.parent.glob("trt/*/*.engine")
    assert sha256_file(path) == said[0]["sha256"]


def test_several_capabilities_make_one_engine(alone, found):
    options = replace(RTX, capabilities=("12.1", "12.0", "8.9", "8.6", "8.0"))
    made = compile_engine(alone, found, options)
    assert made.compute_capabilities == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert Path(made.engine).parent.name == "8.0+8.6+8.9+12.0+12.1-1.7.1.116"


BAD_COMMANDS = {
    "Jetson": (["--compute-capability", "8.7"], EXIT_MISSING, "on a device of 8.7 run: python -m"),
    "Hopper": (["--compute-capability", "8.6,9.0"], EXIT_MISSING, "not for 9.0; on a device of"),
    "no capability": (["--compute-capability", "fast"], EXIT_USAGE, "expected numbers such as"),
    "least over best": (["--profile", "4", "1", "16"], EXIT_USAGE, "--profile 4 1 16: expected"),
    "no batch": (["--profile", "0", "1", "2"], EXIT_USAGE, "--profile 0 1 2: expected"),
    "no TensorRT": (["--builder", "tensorrt"], EXIT_MISSING, "pip install 'aminet-edge[tensorrt]'"),
    "no file": (["--artifact", "none.onnx"], EXIT_ERROR, "none.onnx: not found"),
}


@pytest.mark.parametrize(("flags", "status", "words"), BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_what_cannot_be_asked_is_said_in_one_line(alone, found, capsys, flags, status, words):
    named = [] if "--artifact" in flags else ["--artifact", str(alone)]
    assert tensorrt.main([*named, *flags]) == status
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert said.out == ""
    assert leftovers(alone.parent) == []


def test_without_any_builder_both_reasons_and_what_to_install_are_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EdgeError) as caught:
        worker.find_builder("auto")
    assert caught.value.status == EXIT_MISSING
    assert str(caught.value) == (
        "no builder: tensorrt is not installed; pip install 'aminet-edge[tensorrt]';"
        " tensorrt-rtx is not installed; pip install 'aminet-edge[tensorrt-rtx]'"
    )


def test_without_polygraphy_the_extra_that_brings_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    monkeypatch.setitem(sys.modules, "polygraphy.config", None)
    with pytest.raises(EdgeError, match=r"polygraphy.* pip install 'aminet-edge\[tensorrt-rtx\]'"):
        worker.find_builder("tensorrt-rtx")


def test_tensorrt_without_a_gpu_gives_way_to_tensorrt_rtx(monkeypatch, found):
    """What the real bindings of 10 and 11 do where no GPU is: they raise TypeError."""

    def no_builder(logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    def import_library(name):
        return tensorrt_library if name == "tensorrt" else real(name)

    real = worker.import_library
    logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, severity: None})
    tensorrt_library = SimpleNamespace(Builder=no_builder, Logger=logger)
    monkeypatch.setattr(worker, "import_library", import_library)
    assert worker.find_builder("auto") == found
    with pytest.raises(EdgeError, match="tensorrt is installed, but starts no builder here"):
        worker.find_builder("tensorrt")


def test_random_weights_are_not_built(alone, found):
    write_manifest(alone, replace(read_manifest(alone), random_weights=True))
    with pytest.raises(EdgeError, match="has random weights, for tests"):
        compile_engine(alone, found, RTX)


def test_one_bad_file_of_two_leaves_the_other_an_engine(copied, capsys):
    source, path = copied
    empty = source.with_name("empty.onnx")
    tiny_artifact.write_artifact(
        source.parent, "empty.onnx", b"", precision="fp32", executes_as="fp32"
    )
    assert tensorrt.main(["--json", "--artifact", str(empty), str(source)]) == EXIT_ERROR
    said = capsys.readouterr()
    assert [one["engine"] for one in json.loads(said.out)["engines"]] == [str(path)]
    assert "empty.onnx: the exported graph is not valid ONNX" in said.err


UINT8 = tiny_artifact.build(tiny_artifact.INT8, tiny_artifact.quantized_weights())


def test_the_gate_stands_before_the_build(alone, found, monkeypatch):
    monkeypatch.setattr(trt_build, "ask", None)
    tiny_artifact.write_artifact(alone.parent, model=UINT8, precision="int8", executes_as="int8")
    with pytest.raises(EdgeError, match=r"fp32\.onnx: .* is uint8, expected int8") as caught:
        compile_engine(alone, found, RTX)
    assert caught.value.status == EXIT_DRIFT
    assert leftovers(alone.parent) == []


def test_a_network_that_the_parser_does_not_know_is_refused(alone, found):
    text = tiny_artifact.FP32.replace("Relu", "Bernoulli")
    tiny_artifact.write_artifact(alone.parent, model=tiny_artifact.build(text))
    with pytest.raises(EdgeError, match="tensorrt-rtx cannot read it") as caught:
        compile_engine(alone, found, RTX)
    assert "\n" not in str(caught.value)
    assert Path(str(caught.value).rpartition("see ")[2]).is_file()
    assert leftovers(alone.parent) == []


def build(folder, model, types):
    """Have a model built, without the gate."""
    (folder / worker.SOURCE).write_bytes(model)
    request = worker.Request("tensorrt-rtx", ("8.6",), (1, 4, 16), 64, types)
    return trt_subprocess.ask(folder, {"build": worker.asdict(request)}, "", 60, lambda step: None)


def test_a_warning_of_wrong_numbers_is_an_error(tmp_path):
    """What the gate would have refused: the builder only warns, and takes uint8 for int8."""
    types = types_of(onnx.load_model_from_string(UINT8))
    types["QUANTIZE"] = {"INT8": 1}
    with pytest.raises(EdgeError, match=r"would compute something else: .*UINT8") as caught:
        build(tmp_path, UINT8, types)
    assert caught.value.status == EXIT_DRIFT
    assert not (tmp_path / worker.ENGINE).exists()


def test_a_network_of_other_types_than_the_file_is_refused(tmp_path):
    with pytest.raises(EdgeError, match=r"parsed it to .*FLOAT.* expected .*HALF") as caught:
        build(tmp_path, tiny_artifact.build(), {"CONVOLUTION": {"HALF": 3}})
    assert caught.value.status == EXIT_PRECISION


def test_a_builder_killed_half_way_leaves_nothing(alone, found, monkeypatch):
    popen = subprocess.Popen

    def killed(*arguments, **keywords):
        started = popen(*arguments, **keywords)
        threading.Timer(0.3, started.kill).start()
        return started

    monkeypatch.setattr(trt_subprocess.subprocess, "Popen", killed)
    with pytest.raises(EdgeError, match=r"fp32\.onnx: the builder was killed by signal 9"):
        compile_engine(alone, found, RTX)
    assert leftovers(alone.parent) == []


def test_a_build_that_takes_too_long_is_ended(alone, found):
    started = time.monotonic()
    with pytest.raises(EdgeError, match=r"took longer than 0\.2 s.*--timeout-s"):
        compile_engine(alone, found, replace(RTX, timeout_s=0.2))
    assert time.monotonic() - started < 5
    assert leftovers(alone.parent) == []


def test_a_killed_command_leaves_no_engine_and_the_next_one_builds(alone, found):
    command = [sys.executable, "-m", "export.tensorrt", "--artifact", str(alone)]
    started = subprocess.Popen(command, cwd=ROOT)
    work = alone.parent / "trt" / f"8.6-{found.version}" / ".work" / "fp32"
    while not work.is_dir():
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert leftovers(alone.parent) == []
    assert not compile_engine(alone, found, RTX).up_to_date
    assert not work.exists()


def test_a_full_disk_under_the_builder_is_said(tmp_path, monkeypatch):
    def full(request):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "build", full)
    request = worker.Request("tensorrt-rtx", ("8.6",), (1, 4, 16), 64, {})
    (tmp_path / worker.REQUEST).write_text(json.dumps({"build": worker.asdict(request)}))
    assert worker.main() == 0
    answer = json.loads((tmp_path / worker.RESULT).read_text())
    assert answer == {"error": "the disk is full; make room and run it again", "status": 1}


def test_a_full_disk_at_the_end_leaves_nothing(alone, found, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(EdgeError, match="the disk is full; make room"):
        compile_engine(alone, found, RTX)
    assert leftovers(alone.parent) == []


def test_types_are_counted_in_what_the_engine_inspector_says():
    information = json.dumps(
        {
            "Layers": [
                {"Name": "a", "Outputs": [{"Name": "x", "Format/Datatype": "Int8"}]},
                {"Name": "b", "Outputs": [{"Name": "y", "Format/Datatype": "Half"}]},
                {"Name": "c", "Outputs": [{"Name": "z", "Format/Datatype": "Int8"}]},
                "only a name, as without detailed verbosity",
            ],
            "Bindings": ["lr", "sr"],
        }
    )
    assert worker.count_engine_types(information) == {"Int8": 2, "Half": 1}
