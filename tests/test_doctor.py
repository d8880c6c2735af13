"""`python -m runtime.doctor`: what is here, what is remembered, what would be quicker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import doctor
from runtime.session import open_session

ROOT = Path(__file__).parent.parent


@pytest.fixture
def here(artifact, monkeypatch):
    """A folder with ./artifacts/aminet-edge/fp32.onnx; what `make wheel` packed is not seen."""
    monkeypatch.setattr(doctor, "PACKED", Path("nothing"))
    monkeypatch.chdir(artifact.parent.parent.parent)
    return Path("artifacts", "aminet-edge", "fp32.onnx")


def test_machine_backends_and_artifacts(here, every_backend, capsys):
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    import onnxruntime

    assert f"onnxruntime {onnxruntime.__version__}" in said
    assert f"{here}: fp32; 100.0 dB in onnxruntime" in said
    assert "python -m quantize.int8" in said


def test_what_is_remembered_is_shown(here, capsys):
    open_session(here).close()
    assert doctor.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (verdict,) = report["verdicts"]
    assert verdict["subject"] == str(here)
    assert verdict["says"].startswith("100.0 dB to FP32 in onnxruntime")
    (choice,) = report["choices"]
    assert choice["subject"] == "fp32.onnx in onnxruntime"
    assert "ms a face" in choice["says"]


def test_artifacts_that_are_gone_are_one_line(here, capsys):
    open_session(here).close()
    here.unlink()
    Path(f"{here}.json").unlink()
    report = doctor.examine()
    assert (report.verdicts, report.other_verdicts) == ((), 1)
    assert (report.choices, report.other_choices) == ((), 1)
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    assert "verdicts   1 of artifacts elsewhere, or gone" in said
    assert "choices    1 of artifacts elsewhere, or gone" in said


def test_what_is_remembered_can_be_forgotten(here, capsys):
    """A choice that was made while others used the machine is worth nothing."""
    open_session(here).close()
    assert doctor.main(["--forget", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == "3 records forgotten\n"  # a verdict, a choice, an optimized model's digest
    assert json.loads(said.out)["choices"] == []
    with open_session(here) as session:
        assert not session.choice.remembered
        assert not session.verdict.remembered


def test_a_damaged_artifact_and_record_are_no_trouble(here, cache, capsys):
    open_session(here).close()
    for record in cache.rglob("*.json"):
        record.write_text("{")
    Path(f"{here}.json").write_text("{")
    assert doctor.main([]) == 0
    assert "fp32.onnx.json: is not JSON" in capsys.readouterr().out


def test_missing_parts_come_with_their_command(here, monkeypatch):
    monkeypatch.setattr(doctor, "installed_version", lambda name: None)
    report = doctor.examine()
    assert {part.version for part in (*report.backends, *report.inputs)} == {None}
    assert all("pip install" in part.install for part in (*report.backends, *report.inputs))
    assert report.advice[0] == "ONNX Runtime is missing: pip install onnxruntime"


def test_no_backend_is_imported():
    program = (
        "import sys\n"
        "from runtime import doctor\n"
        "doctor.examine()\n"
        "print(sorted({'numpy', 'onnxruntime', 'openvino', 'av'} & set(sys.modules)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"
