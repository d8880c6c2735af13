"""`python -m runtime.doctor`: what runs here and what not, what is remembered, what is faster."""

import json
import shutil
from pathlib import Path

import pytest

import tiny_artifact
from runtime import diagnosis, doctor, infer
from runtime.drift import write_probes
from runtime.errors import EXIT_DRIFT, EXIT_MISSING
from runtime.session import open_session
from test_session import FAULTY


@pytest.fixture
def here(artifact, monkeypatch):
    """A folder with ./artifacts/aminet-edge/fp32.onnx; what `make wheel` packed is not seen."""
    monkeypatch.setattr(diagnosis, "PACKED", Path("nothing", "aminet-edge"))
    monkeypatch.setattr("runtime.places.PACKED", Path("nothing", "aminet-edge"))
    monkeypatch.chdir(artifact.parent.parent.parent)
    return Path("artifacts", "aminet-edge", "fp32.onnx")


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_machine_backends_artifacts_and_what_infer_runs(here, capsys):
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    import onnxruntime

    assert f"onnxruntime {onnxruntime.__version__}" in said
    assert f"{here}: fp32; 100.0 dB in onnxruntime" in said
    assert f"infer      runs {here} (fp32) in onnxruntime" in said
    assert "python -m quantize.int8" in said


BROKEN = {
    "a flipped byte": (flip_a_byte, "fp32.onnx: is not the file", 1),
    "probes of another export": (
        lambda path: write_probes(path.with_name("probes.npz"), tiny_artifact.make_probes(seed=2)),
        "probes.npz: are not the probes of fp32.onnx",
        1,
    ),
    "a damaged manifest": (
        lambda path: Path(f"{path}.json").write_text("{"),
        "fp32.onnx.json: is not JSON",
        1,
    ),
    "drift": (
        lambda path: tiny_artifact.write_artifact(path.parent, model=FAULTY),
        "fp32.onnx: drifts from FP32",
        EXIT_DRIFT,
    ),
    "nothing": (lambda path: shutil.rmtree(path.parent), "no model found", 1),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_infer_refuses_the_doctor_does_not_call_healthy(here, face, capsys, fault):
    spoil, message, status = BROKEN[fault]
    open_session(here).close()  # what is remembered does not hide it
    spoil(here)
    assert infer.main([str(face)]) == status
    refused = capsys.readouterr().err.splitlines()[-1]
    assert doctor.main(["--json"]) == status
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["infer"]["status"] == status
    assert message in report["infer"]["error"]
    assert said.err.splitlines()[-1] == refused == f"error: {report['infer']['error']}"
    if fault not in ("drift", "nothing"):
        assert message in report["artifacts"][0]["error"]
    assert doctor.main([]) == status
    assert f"infer      fails with exit status {status}: " in capsys.readouterr().out


def test_it_takes_the_arguments_of_infer(here, capsys, monkeypatch):
    elsewhere = Path(shutil.move(here.parent, "elsewhere"))
    assert doctor.main([]) == 1
    capsys.readouterr()
    for named in (elsewhere, elsewhere / "fp32.onnx"):
        assert doctor.main(["--artifact", str(named), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["infer"]["artifact"] == str(elsewhere / "fp32.onnx")
        assert [each["path"] for each in report["artifacts"]] == [str(elsewhere / "fp32.onnx")]
    asked = ["--artifact", str(elsewhere), "--backend", "tensorrt"]
    assert doctor.main(asked) == EXIT_MISSING
    capsys.readouterr()
    assert doctor.main(["--provider", "cuda", "--backend", "openvino"]) == 2


def test_what_is_remembered_is_shown_with_its_folder(here, capsys):
    open_session(here).close()
    assert doctor.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (verdict,) = report["verdicts"]
    assert (verdict["artifact"], verdict["backend"]) == (
        str(here),
        report["infer"]["backend"] + " " + report["infer"]["backend_version"],
    )
    assert verdict["fidelity_db"] == 100
    named = {(choice["folder"], choice["artifact"]) for choice in report["choices"]}
    assert named == {(str(here.parent), "fp32.onnx")}
    assert all(choice["face_ms"] > 0 for choice in report["choices"])
    assert doctor.main([]) == 0
    assert f"choices    {here.parent}: fp32.onnx in onnxruntime, " in capsys.readouterr().out


def test_artifacts_that_are_gone_are_one_line(here, capsys):
    open_session(here).close()
    here.unlink()
    Path(f"{here}.json").unlink()
    report = diagnosis.examine()
    assert (report.verdicts, report.other_verdicts) == ((), 1)
    assert (report.choices, report.other_choices) == ((), 1)
    assert doctor.main([]) == 1
    said = capsys.readouterr().out
    assert "verdicts   1 of artifacts elsewhere, or gone" in said
    assert "choices    1 of artifacts elsewhere, or gone" in said


def test_what_is_remembered_can_be_forgotten(here, capsys):
    """A choice that was made while others used the machine is worth nothing."""
    with open_session() as session:
        assert not session.choice.remembered
    assert doctor.main(["--forget", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == "3 records forgotten\n"  # a verdict, a choice, an optimized model's digest
    assert len(json.loads(said.out)["choices"]) == 1  # that of the doctor itself


def test_damaged_records_are_no_trouble(here, cache, capsys):
    open_session(here).close()
    for record in cache.rglob("*.json"):
        record.write_text("{")
    assert doctor.main([]) == 0
    assert "runs artifacts" in capsys.readouterr().out


def test_missing_parts_come_with_their_command(here, monkeypatch):
    monkeypatch.setattr(diagnosis, "installed_version", lambda name: None)
    monkeypatch.setattr("runtime.media.centerface.find_file", lambda: None)
    report = diagnosis.examine()
    assert {part.version for part in (*report.backends, *report.inputs)} == {None}
    install = ("pip install ", "python -m runtime.media.fetch")
    assert all(part.install.startswith(install) for part in (*report.backends, *report.inputs))
    assert report.advice[0] == "ONNX Runtime is missing: pip install onnxruntime"


def test_what_cannot_be_known_of_a_processor_is_unknown(here, monkeypatch, capsys):
    monkeypatch.setattr(diagnosis, "cpu_features", lambda: None)
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    assert "unknown whether it has " in said
    assert "does not say what the processor has" in said
