"""The Dockerfile installs the wheel and nothing else, and stays small (it is read, not built)."""

import re
from importlib.metadata import distribution
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
LINES = (ROOT / "Dockerfile").read_text().splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAX_PACKAGES_MB = 250


def instruction(name):
    (line,) = [line for line in LINES if line.startswith(f"{name} ")]
    return line.removeprefix(f"{name} ")


def test_the_image_has_a_python_that_the_wheel_supports():
    python = re.match(r"python:(3\.\d+)-slim", instruction("FROM")).group(1)
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def test_the_image_runs_the_console_script_of_the_wheel():
    assert instruction("ENTRYPOINT") == f'["{next(iter(PROJECT["scripts"]))}"]'
    assert instruction("COPY").split()[0] == "dist/*.whl"
    assert (ROOT / ".dockerignore").read_text().split() == ["*", "!dist/*.whl"]
    assert instruction("USER") != "root"


def test_its_packages_are_small():
    sizes = {}
    pending = [re.split(r"[<>=]", requirement)[0] for requirement in PROJECT["dependencies"]]
    while pending:
        name = pending.pop()
        if name in sizes:
            continue
        package = distribution(name)
        kept = [f for f in package.files if "__pycache__" not in f.parts and "tests" not in f.parts]
        sizes[name] = sum(f.locate().stat().st_size for f in kept if f.locate().is_file()) / 1e6
        required = [text for text in package.requires or [] if "extra ==" not in text]
        pending += [re.split(r"[ ;<>=!~\[(]", text)[0] for text in required]
    assert {"numpy", "pillow", "onnxruntime"} <= sizes.keys()
    assert sum(sizes.values()) < MAX_PACKAGES_MB
