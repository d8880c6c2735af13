"""Cold start: each case is a process of its own, with its peak memory."""

import json

from benchmarks.studies import coldstart


def test_all_cases_are_measured(artifact, capsys):
    assert coldstart.main(["--artifact", str(artifact), "--runs", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["case"] for row in report["rows"]] == list(coldstart.CASES)
    assert all(row["p50_s"] > 0 and row["peak_mib"] > 5 for row in report["rows"])
    by_case = {row["case"]: row for row in report["rows"]}
    assert by_case["--help"]["peak_mib"] < by_case["remembered"]["peak_mib"]
    assert report["backend"].startswith("onnxruntime ")


def test_a_start_that_fails_is_an_error(artifact, capsys):
    artifact.write_bytes(b"damaged")
    assert coldstart.main(["--artifact", str(artifact)]) == 1
    assert "runtime.infer ended with 1" in capsys.readouterr().err
