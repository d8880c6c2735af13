"""Telemetry is disabled: export, quantization and inference reach no host and leave no trace.

ONNX Runtime reports from C++ and writes a database into the user's cache, OpenVINO and NNCF report
their import: so files and system calls are counted, not Python's sockets.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from calib_data.generate import draw_faces, read_statistics
from runtime.image import write_image
from runtime.telemetry import HIDDEN, SWITCHES
from test_architecture import SOURCES, imported
from tiny_networks import BATCHED, write_checkpoint

ROOT = Path(__file__).parent.parent
WORK = """
import sys

from export.onnx import main as export
from export.compare import main as compare
from export.litert import main as litert
from quantize.fp16 import main as fp16
from quantize.int8 import main as int8
from runtime.doctor import main as doctor
from runtime.infer import main as infer

fp32 = ["--artifact", "made/fp32.onnx"]
assert export(["--checkpoint", "tiny.safetensors", "--out", fp32[1]]) == 0
assert fp16(fp32) == 0
assert int8([*fp32, "--calib", "calib", "--max-drop-db", "5"]) == 0
assert litert(["--artifact", "made/int8.onnx"]) == 0
assert compare(["made/fp32.onnx", "made/int8.onnx", "--layers"]) == 0
for backend in ("onnxruntime", "openvino"):
    assert infer(["calib/0.png", *fp32, "--backend", backend, "--out", backend]) == 0
assert infer(["calib/0.png", "--artifact", "made/litert/int8.tflite", "--out", "litert"]) == 0
assert doctor(fp32) == 0
assert {"openvino", "polygraphy"} <= sys.modules.keys()
"""
COMPARE = """
import sys

from benchmarks.studies.quantizers import main as compare
from export.onnx import main as export
from quantize.int8 import main as int8

assert export(["--checkpoint", "tiny.safetensors", "--out", "made/fp32.onnx"]) == 0
fp32 = ["--artifact", "made/fp32.onnx", "--calib", "calib"]
assert int8([*fp32, "--engine", "nncf", "--target", "tensorrt", "--max-drop-db", "5"]) == 0
assert compare(fp32) == 0
assert "nncf" in sys.modules
"""
LEAK = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
NETWORK = "trace=connect,sendto,sendmsg,sendmmsg"
STRACE = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", NETWORK, "-e", "signal=none")
ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')


def run_watched(code, folder):
    """Run Python with its home and cache in folder/home, and without what would excuse libraries.

    With strace, where it works, the system calls that name an address are in folder/calls.
    """
    home = folder / "home"
    home.mkdir()
    excused = {"CI", "TF_BUILD", "JENKINS_URL", *SWITCHES}
    kept = {name: value for name, value in os.environ.items() if name not in excused}
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    traced = [*STRACE, "-o", str(folder / "calls")] if strace_works() else []
    return subprocess.run(
        [*traced, sys.executable, "-c", code],
        cwd=folder,
        env={**kept, **places, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def strace_works():
    if not shutil.which("strace"):
        return False
    return subprocess.run([*STRACE, "true"], capture_output=True).returncode == 0


def addresses(calls):
    """The addresses outside this machine that system calls named."""
    named = {a or b for a, b in ADDRESS.findall(calls.read_text())}
    return {address for address in named if not address.startswith("127.") and address != "::1"}


def traces(folder):
    """The files in the home and cache that are not the project's own records."""
    files = [path for path in (folder / "home").rglob("*") if path.is_file()]
    return [str(path) for path in files if ".cache/aminet-edge/" not in path.as_posix()]


@pytest.fixture(scope="module", params=[WORK, pytest.param(COMPARE, marks=pytest.mark.soak)])
def worked(request, tmp_path_factory):
    """The folder in which everything was run."""
    folder = tmp_path_factory.mktemp("watched")
    for number, face in enumerate(draw_faces(read_statistics(), seed=9, count=24)):
        write_image(folder / "calib" / f"{number}.png", face)
    write_checkpoint(folder / "tiny.safetensors", BATCHED)
    done = run_watched(request.param, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_nothing_is_left_in_the_home_or_the_cache(worked):
    assert traces(worked) == []


def test_no_system_call_names_another_host(worked):
    if not (worked / "calls").exists():
        pytest.skip("strace is not installed, or may not trace here: apt-get install strace")
    assert addresses(worked / "calls") == set()


@pytest.mark.skipif(not strace_works(), reason="strace is not installed, or may not trace here")
def test_a_call_to_another_host_would_be_seen(tmp_path):
    assert run_watched(LEAK, tmp_path).returncode == 0
    assert addresses(tmp_path / "calls") == {"192.0.2.1"}


def test_a_library_s_trace_would_be_seen(tmp_path):
    """The very library, without the switch."""
    run_watched("import onnxruntime", tmp_path)
    assert any("onnxruntime" in path for path in traces(tmp_path))


REPORTING = {"onnxruntime", "openvino", "nncf", "onnxsim", *HIDDEN}  # onnxsim imports onnxruntime
DOORS = {"disable_telemetry", "import_onnxruntime", "import_openvino"}


def reporting_imports(tree):
    """The lines that import what reports, and whether each is in a function."""
    checked = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if id(node) not in checked and {n.split(".")[0] for n in imported(node)} & REPORTING:
            yield node.lineno, id(node) in inside


def test_what_reports_is_imported_when_used_and_its_telemetry_is_disabled():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if lines := dict(reporting_imports(tree)):
            assert all(lines.values()), f"{path} imports it as soon as it is imported: {lines}"
            calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
            assert calls & DOORS, path
