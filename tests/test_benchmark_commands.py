"""Every benchmark command explains itself at once: a sentence, and a default for each option."""

import subprocess
import sys
from importlib import import_module

import pytest

from face_tars import ROOT

COMMANDS = [
    *("accuracy", "demo", "fetch", "latency", "publish", "regress", "release", "report"),
    *(f"studies.{name}" for name in ("ablation", "coldstart", "profile", "quantizers")),
    "studies.real_faces",
]
HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "skimage", "scipy", "matplotlib", "jinja2")
IMPORT_ALL = """
import sys
from importlib import import_module
for name in sys.argv[1:]:
    import_module(f"benchmarks.{name}")._parser().format_help()
print(*{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_sentence_and_a_default_for_each_option(name):
    parser = import_module(f"benchmarks.{name}")._parser()
    assert parser.prog == f"python -m benchmarks.{name}"
    assert len(parser.description.split()) >= 5
    for action in parser._actions[1:]:
        assert action.help, action.dest
        assert "default" in action.help or "(required)" in action.help, action.dest


def test_help_imports_no_library():
    run = [sys.executable, "-c", IMPORT_ALL, *COMMANDS]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & set(HEAVY)


def test_every_module_with_a_main_is_a_command():
    """Other modules cannot be run, so nobody runs one by mistake."""
    runnable = [
        path.relative_to(ROOT / "benchmarks").with_suffix("").as_posix().replace("/", ".")
        for path in (ROOT / "benchmarks").rglob("*.py")
        if 'if __name__ == "__main__":' in path.read_text()
    ]
    assert {"harness.worker", *COMMANDS} <= set(runnable)
    for name in set(runnable) - {"harness.worker"}:
        assert callable(import_module(f"benchmarks.{name}").main)
