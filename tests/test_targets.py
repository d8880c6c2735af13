"""The rows of the table of targets: what stands in a row, and what is refused."""

import json

import pytest

from benchmarks.harness.targets import TargetRow, read_rows, targets_table, write_rows
from runtime.errors import EdgeError

RUN = TargetRow("LiteRT 2.3.0", "m/litert/int8.tflite", 4_280_000, "int8", 55.3, 54.9, 43.2,
                "a processor", "python -m runtime.check m/litert/int8.tflite")  # fmt: skip
NOT_RUN = TargetRow(
    *("Core ML", "m/coreml/fp16.mlpackage", 7_630_000, "fp16", None, None, None, None),
    command="swift verify.swift",
    not_run="needs a Mac",
)


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "targets.json"
    write_rows(path, [RUN, NOT_RUN], {"machine": {"cores": 2}})
    assert read_rows(path) == [RUN, NOT_RUN]
    assert json.loads(path.read_bytes())["machine"] == {"cores": 2}


def test_the_table_says_where_a_file_ran_or_why_it_did_not():
    lines = targets_table([RUN, NOT_RUN]).splitlines()
    assert "| 55.3 | 54.9 | 43.2 |" in lines[2]
    assert "| a processor |" in lines[2]
    assert "| not run: needs a Mac |" in lines[3]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"not_run": "no device"}, "either a fidelity or the reason"),
        ({"fidelity_db": None}, "either a fidelity or the reason"),
        ({"drift_db": 0.01}, "on 0 faces"),
        ({"colour": "red"}, "colour unknown"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(tmp_path, changes, reason):
    path = tmp_path / "targets.json"
    write_rows(path, [RUN], {})
    content = json.loads(path.read_bytes())
    content["rows"][0].update(changes)
    path.write_text(json.dumps(content))
    with pytest.raises(EdgeError, match=reason):
        read_rows(path)
