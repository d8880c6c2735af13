"""Every command that a message advises exists and parses; those that cost little are run."""

import argparse
import ast
import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import tiny_artifact
from runtime import check, doctor, infer

ROOT = Path(__file__).parent.parent
PACKAGES = ("runtime", "export", "quantize", "aminet", "benchmarks", "calib_data")
COMMAND = re.compile(rf"python -m ((?:{'|'.join(PACKAGES)})(?:\.\w+)+)\b(?!\.\{{)([^;]*)")
LATER = re.compile(r"\{[^}]*\}")  # a value that is known when the message is made
# What stands for it, after an option.
FOR_OPTION = {"--model": "aminet-edge", "--scale": "2", "--cpu": "cortex-a72"}
# What a command cannot do without, where a message names the command alone.
NEEDED = {
    "runtime.infer": ["face.png"],
    "runtime.align": ["photo.png", "--out", "faces"],
}
SUBCOMMANDS = {"statistics", "faces", "probes"}  # of calib_data.generate
PATH = "artifacts/aminet-edge/fp32.onnx"


def text_of(node):
    """A string with {} for what is known later; None if the node is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    return None


def messages(path):
    """The strings of a file that are neither docstrings nor a parser's `prog`."""
    tree = ast.parse(path.read_text())
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    others = (ast.Expr, ast.keyword)
    statements = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, others) and getattr(node, "arg", "prog") == "prog"
    }
    for node in ast.walk(tree):
        text = text_of(node)
        if text is not None and id(node) not in inside | statements:
            yield text


def arguments_in(rest):
    """The words after a module that are arguments; prose follows them."""
    words = []
    for word in rest.replace(". ", " . ").split():
        bare = word.rstrip(".,:)'\"`")
        option = words[-1] if words and words[-1].startswith("--") else ""
        if LATER.search(word):
            words.append(FOR_OPTION.get(option, PATH))
        elif re.match(r"--\w" if not option else r"[-\w/]", word) or bare in SUBCOMMANDS:
            words.append(bare)
        else:
            break
        if bare != word:
            break
    return words


def advised():
    """All commands in the messages of all files, as (module, arguments)."""
    found = {}
    for path in sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        for text in messages(path):
            for module, rest in COMMAND.findall(text):
                command = shlex.join([module, *arguments_in(rest)])
                found.setdefault(command, path.relative_to(ROOT).as_posix())
    return found


def test_there_are_commands_to_test():
    found = advised()
    assert len(found) > 20
    assert "export.tensorrt" in found
    assert any(command.startswith("export.onnx --model") for command in found)


@pytest.mark.parametrize("command", advised())
def test_every_advised_command_parses(command, monkeypatch, capsys):
    """What the command would be told is plausible; it is stopped when its arguments are parsed."""
    name, *arguments = shlex.split(command)
    arguments = arguments or NEEDED.get(name, [])
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise StopIteration

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    module = importlib.import_module(name)
    with pytest.raises((StopIteration, SystemExit)) as ended:
        module.main(arguments)
    assert getattr(ended.value, "code", None) in (None, 0)  # 0: --help


def advice_in(capsys):
    """The command that the error on stderr ends with."""
    line = capsys.readouterr().err.splitlines()[-1]
    module, rest = COMMAND.findall(line)[-1]
    return module, shlex.split(rest)


def test_a_file_of_another_backend_is_made_of_what_that_needs(artifact, face, capsys):
    """INT8 for a CPU is refused by TensorRT: the file for it is named, or else FP32."""
    tiny_artifact.write_artifact(artifact.parent, "int8.onnx")
    asked = [str(face), "--artifact", str(artifact.parent), "--backend", "tensorrt"]
    assert infer.main(asked) == 5
    assert advice_in(capsys) == ("export.tensorrt", ["--artifact", str(artifact)])
    for_tensorrt = tiny_artifact.write_artifact(artifact.parent, "int8-trt.onnx", precision="int8")
    assert infer.main(asked) == 5
    assert advice_in(capsys) == ("export.tensorrt", ["--artifact", str(for_tensorrt)])


def test_check_and_doctor_are_what_messages_call_them(artifact, capsys):
    for command in (check, doctor):
        assert command.main(["--artifact", str(artifact.parent), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)
