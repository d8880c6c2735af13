"""The rows of the table of targets: what stands in a row, and what is refused."""

import json
import shutil
from dataclasses import replace

import pytest

from benchmarks.front_page import devices_table
from benchmarks.harness.targets import TargetRow, read_rows, targets_table, write_rows
from benchmarks.studies.targets import measure_targets
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


def test_the_readme_has_a_line_for_a_runtime_and_shows_the_first_model():
    rows = [
        replace(
            RUN,
            target=f"LiteRT.js 2.5.3, WebAssembly, {threads}",
            file=f"{model}/int8.tflite",
            precision=f"int8, {share}% of the multiply-adds, as the file says",
            ran_on="Chromium 156, a processor",
        )
        for model, share in (("aminet-edge", 96.3), ("aminet-real", 81.4))
        for threads in ("threads", "one thread")
    ]
    _, _, line = devices_table(rows).splitlines()
    assert line.startswith("| [LiteRT.js 2.5.3](docs/browser.md) | `int8.tflite` and 1 more |")
    assert "| 96.3 % |" in line
    assert line.endswith("| Chromium 156: a processor |")


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


def test_every_file_of_a_model_has_a_row(device_model):
    rows = {row.file: row for row in measure_targets(device_model)}
    for name in ("litert/int8.tflite", "ncnn/int8.param"):
        row = rows[f"{device_model.name}/{name}"]
        assert row.fidelity_db is not None
        assert row.precision.startswith("int8, ")
        assert "% of the multiply-adds" in row.precision
    packages = [row for row in rows.values() if row.file.endswith(".mlpackage")]
    assert len(packages) == 2
    assert all(row.not_run.startswith("needs a Mac; coreml, interpreted: ") for row in packages)
    network = rows[f"{device_model.name}/ncnn/fp32.param"]
    parts = (device_model / "ncnn" / f"fp32.{suffix}" for suffix in ("param", "bin"))
    assert network.bytes == sum(part.stat().st_size for part in parts)


def test_real_faces_give_the_drift(device_model, hr_faces, tmp_path):
    (tmp_path / "litert").mkdir()
    for name in ("fp32.onnx", "fp32.onnx.json", "probes.npz", "litert/fp32.tflite"):
        shutil.copy(device_model / name, tmp_path / name)
    shutil.copy(device_model / "litert" / "fp32.tflite.json", tmp_path / "litert")
    rows = measure_targets(tmp_path, [str(hr_faces)])
    assert [row.faces for row in rows] == [3, 3]
    assert all(abs(row.drift_db) < 0.01 for row in rows)


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(EdgeError, match="holds none of fp32"):
        measure_targets(tmp_path)
