"""What the README shows is true."""

import re
from pathlib import Path

import numpy as np

from runtime import infer
from runtime.image import read_image

README = Path(__file__).parent.parent / "README.md"


def plain_onnxruntime():
    """The block of Python in the README that needs only onnxruntime, numpy and Pillow."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if "onnxruntime.InferenceSession" in block]
    return found


def test_plain_onnxruntime_gives_the_same_bits_as_infer(face, artifact, monkeypatch):
    monkeypatch.chdir(face.parent)  # where face.png and artifacts/aminet-edge/fp32.onnx are
    exec(compile(plain_onnxruntime(), "README.md", "exec"), {})
    plain = read_image("face_sr.png")
    assert infer.main(["face.png", "--out", "infer.png"]) == 0
    assert np.array_equal(plain, read_image("infer.png"))


def test_plain_onnxruntime_is_short():
    lines = [line for line in plain_onnxruntime().splitlines() if line.strip()]
    assert len(lines) <= 10
