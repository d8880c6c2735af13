"""The GPU's script, rehearsed on the CPU with tiny networks."""

import importlib
import json

import pytest

from aminet.config import MODELS
from benchmarks import gpu
from runtime.errors import EXIT_ERROR, EXIT_USAGE
from tiny_training import TINY, write_disks


@pytest.fixture
def arguments(tmp_path):
    faces = tmp_path / "faces"
    faces.mkdir()
    write_disks(faces, 8)
    return ["--data", str(faces), "--val", str(faces), "--out", str(tmp_path / "gpu"), "--rehearse"]


@pytest.fixture
def tiny(monkeypatch):
    """All models are tiny, and steps run in this process; the modules that were run."""
    ran = []
    for name in ("aminet", "aminet-edge", "aminet-s", "amigan"):
        monkeypatch.setitem(MODELS, name, TINY)

    def run_step(step):
        ran.append(step.name)
        module, *rest = step.command
        return importlib.import_module(module).main(rest)

    monkeypatch.setattr(gpu, "run_step", run_step)
    return ran


def test_networks_are_trained_distilled_and_exported_and_not_done_twice(arguments, tiny, tmp_path):
    only = ["--only", "train aminet", "train aminet-edge", "export aminet-edge"]
    assert gpu.main([*arguments, *only]) == 0
    assert tiny == ["train aminet", "train aminet-edge", "export aminet-edge"]
    assert (tmp_path / "gpu" / "aminet-edge" / "fp32.onnx").is_file()
    assert gpu.main([*arguments, *only]) == 0
    assert len(tiny) == 3


def test_a_step_that_fails_does_not_stop_the_others(arguments, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "run_step", lambda step: 1 if step.name == "train aminet" else 0)
    assert gpu.main([*arguments, "--json"]) == EXIT_ERROR
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["name"] for step in steps if step["status"]] == ["train aminet"]
    assert len(steps) > 10
    need_a_gpu = ("tests", "latency")
    assert not [step for step in steps if step["name"].split()[0] in need_a_gpu]


def test_engines_that_a_step_compiles_are_timed_by_a_later_one(arguments, monkeypatch, tmp_path):
    commands = {}
    engine = tmp_path / "gpu" / "aminet-edge" / "trt" / "9.0" / "fp32.engine"

    def run_step(step):
        commands[step.name] = step.command
        if step.name == "engines aminet-edge":
            engine.parent.mkdir(parents=True)
            engine.touch()
        return 0

    monkeypatch.setattr(gpu, "run_step", run_step)
    assert gpu.main(arguments[:-1]) == 0
    assert str(engine) in commands["latency aminet-edge"]
    assert str(engine) not in commands["latency aminet"]


def test_every_step_is_a_command(arguments, capsys):
    assert gpu.main([*arguments, "--list"]) == 0
    for line in capsys.readouterr().out.splitlines():
        module = line.split("python -m ")[1].split()[0]
        assert module == "pytest" or hasattr(importlib.import_module(module), "main")


def test_an_unknown_step_is_named(arguments, capsys):
    assert gpu.main([*arguments, "--only", "sleep"]) == EXIT_USAGE
    assert "no step is called sleep" in capsys.readouterr().err
