"""What README, docs and examples show is true."""

import ast
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_artifact
from runtime import infer
from runtime.image import read_image

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MAX_README_BYTES = 9 << 10
PACKAGES = ("aminet", "export", "quantize", "runtime", "benchmarks", "calib_data")
PROSE = [README, *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("*.md"))]
# The project's former words: docs/concepts.md has the field's.
OLD_TERMS = (
    "faces of nobody",
    "given back",
    "as a newcomer deploys",
    "bystander",
    "contender",
    "the machine's limit",
    "is not there",
    "without a word",
    "enlarg",
    "a pair of",
    "mend",
    "extremes",
    "harsher",
    "phones home",
    "picture",
)


def test_plain_onnxruntime_gives_the_same_bits_as_infer(face, artifact, monkeypatch):
    monkeypatch.chdir(face.parent)  # where face.png and artifacts/aminet-edge/fp32.onnx are
    runpy.run_path(str(ROOT / "examples" / "plain_onnxruntime.py"))
    plain = read_image("face_sr.png")
    assert infer.main(["face.png", "--out", "infer.png"]) == 0
    assert np.array_equal(plain, read_image("infer.png"))


def test_the_examples_run(face, artifact, tmp_path):
    for number, image in enumerate(tiny_artifact.faces(3, seed=5)):
        (tmp_path / "faces").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "faces" / f"{number}.png")
    for arguments in (["session.py"], ["batch_job.py", "faces", "upscaled"]):
        run = [sys.executable, str(ROOT / "examples" / arguments[0]), *arguments[1:]]
        done = subprocess.run(
            run, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "face_sr.png").shape == (128, 128, 3)
    assert len(list((tmp_path / "upscaled").iterdir())) == 3


def test_the_readme_is_short_and_shows_an_image():
    text = README.read_text()
    assert len(text.encode()) <= MAX_README_BYTES
    image = text.split("](", 1)[1].split(")", 1)[0] if text.index("![") else ""
    assert "![" in text[:1500]
    assert image
    assert "docs/concepts.md" in text


def test_links_lead_to_files():
    for page in PROSE:
        for target in [part.split(")", 1)[0] for part in page.read_text().split("](")[1:]]:
            path = target.split("#", 1)[0]
            if path and "://" not in path:
                assert (page.parent / path).exists(), f"{page.name}: {target}"


def test_the_glossary_defines_the_central_terms():
    glossary = (ROOT / "docs" / "concepts.md").read_text()
    for term in ("Fidelity", "Drift", "Probes", "Budget", "Effective precision", "Exit status"):
        assert term.lower() in glossary.lower()


@pytest.mark.parametrize("page", PROSE, ids=lambda path: path.name)
def test_pages_speak_the_fields_language(page):
    text = page.read_text().lower()
    assert [term for term in OLD_TERMS if term in text] == []


def test_troubleshooting_quotes_messages_of_the_code():
    """String literals are joined as they stand in the source, so line ends do not matter."""
    sources = [
        path
        for name in ("aminet", "export", "quantize", "runtime")
        for path in (ROOT / name).rglob("*.py")
    ]
    code = "".join(
        "".join(
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        for path in sources
    )
    rows = [
        line
        for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert len(quoted) > 25
    assert [text for text in quoted if text not in code] == []


def test_messages_and_help_speak_the_fields_language():
    spoken = ("EdgeError", "add_argument", "ArgumentParser", "add_argument_group")
    found = []
    for path in (path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in spoken:
                texts = [n.value for n in ast.walk(call) if isinstance(n, ast.Constant)]
                said = " ".join(text for text in texts if isinstance(text, str)).lower()
                found += [(path.name, term) for term in OLD_TERMS if term in said]
    assert found == []


def test_the_sharp_version_beats_real_esrgan_as_readme_says():
    assert (
        "`amigan-real` has a lower LPIPS and a higher PSNR-Y than Real-ESRGAN x4plus"
        in README.read_text()
    )
    rows = json.loads((ROOT / "docs/measured/wild-perceptual.json").read_bytes())["rows"]
    cells = {(row["kind"], row["size"], row["upscaler"]): row for row in rows}
    theirs = [cell for cell in cells if cell[2] == "Real-ESRGAN x4plus"]
    assert len(theirs) == 12
    for *cell, _ in theirs:
        ours, their = (cells[(*cell, name)] for name in ("amigan-real", "Real-ESRGAN x4plus"))
        assert ours["lpips"] < their["lpips"]
        assert ours["psnr_y"] > their["psnr_y"]
