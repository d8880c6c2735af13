"""benchmarks.studies.throughput: ways to share the cores, in turns, each in its own process."""

import json

import pytest

from benchmarks.studies import throughput
from runtime.errors import EXIT_ERROR, EXIT_USAGE


def test_calls_and_files_are_measured(artifact, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "usable_cores", lambda: 2)
    out = tmp_path / "throughput.json"
    asked = ["--artifact", str(artifact), "--faces", "3", "--seconds", "0.01", "--rounds", "1"]
    assert throughput.main([*asked, "--out", str(out)]) == 0
    assert "faces/CPU s" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [(row["case"], row["threads"], row["workers"]) for row in rows] == [
        ("run", None, 1),
        ("run", None, 1),
        ("run", 1, 1),
        ("run", 1, 2),
        ("run", 1, 2),
        ("infer", None, 1),
        ("infer", 1, 2),
    ]
    assert all(row["faces_per_s"] > 0 and row["faces_per_cpu_s"] > 0 for row in rows)
    assert rows[0]["speedup"] == rows[5]["speedup"] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--rounds", "0"], EXIT_USAGE, "expected over 0"),
        (["--artifact", "absent.onnx", "--faces", "1"], EXIT_ERROR, "absent.onnx: not found"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments, status, message, capsys):
    assert throughput.main(arguments) == status
    said = capsys.readouterr()
    assert message in said.err.splitlines()[-1]
