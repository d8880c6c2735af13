"""Export, quantization and inference open no socket and leave nothing in the user's home.

OpenVINO's package reports its import unless it is kept from it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calib_data.generate import draw_faces, read_statistics
from runtime.image import write_image
from tiny_networks import BATCHED, write_checkpoint

ROOT = Path(__file__).parent.parent
REFUSE = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind"):
        raise SystemExit(f"{event}: {arguments}")

sys.addaudithook(refuse)
"""
WORK = """
from export.onnx import main as export
from export.litert import main as litert
from quantize.fp16 import main as fp16
from quantize.int8 import main as int8
from runtime.infer import main as infer

fp32 = ["--artifact", "made/fp32.onnx"]
assert export(["--checkpoint", "tiny.safetensors", "--out", fp32[1]]) == 0
assert fp16(fp32) == 0
assert int8([*fp32, "--calib", "calib", "--max-drop-db", "5"]) == 0
assert litert(["--artifact", "made/int8.onnx"]) == 0
for backend in ("onnxruntime", "openvino"):
    assert infer(["calib/0.png", *fp32, "--backend", backend, "--out", backend]) == 0
assert infer(["calib/0.png", "--artifact", "made/litert/int8.tflite", "--out", "litert"]) == 0
assert "openvino" in sys.modules
"""
COMPARE = """
from benchmarks.studies.quantizers import main as compare
from export.onnx import main as export

assert export(["--checkpoint", "tiny.safetensors", "--out", "made/fp32.onnx"]) == 0
assert compare(["--artifact", "made/fp32.onnx", "--calib", "calib"]) == 0
assert "nncf" in sys.modules
"""


@pytest.mark.parametrize(
    "work",
    [WORK, pytest.param(COMPARE, marks=pytest.mark.soak)],
    ids=["export, quantization, inference", "comparison of engines"],
)
def test_nobody_phones_home(tmp_path, work):
    home, folder = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    for number, face in enumerate(draw_faces(read_statistics(), seed=9, count=24)):
        write_image(folder / "calib" / f"{number}.png", face)
    write_checkpoint(folder / "tiny.safetensors", BATCHED)
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", REFUSE + work],
        cwd=folder,
        env={**kept, **places, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
