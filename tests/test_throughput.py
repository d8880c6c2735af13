"""Throughput: ways to share the cores, in turns; what follows for machines; and its gate."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import throughput_regression
from benchmarks.harness.machine import machine
from benchmarks.studies import scale, throughput
from benchmarks.studies.rates import Throughput, ThroughputRow, read_throughput, throughput_tables
from benchmarks.studies.scale import Inputs, simulate
from benchmarks.studies.stages import PngSetting, Stage, Stages
from benchmarks.throughput_regression import compare_throughput
from runtime.errors import EXIT_ERROR, EXIT_USAGE

STAGES = Stages(
    (Stage("decode", 0.1), Stage("network", 6.0), Stage("encode", 1.0)),
    read_bytes=1_000.0,
    written_bytes=19_000.0,
    png=(PngSetting(1, "run-length", 1.0, 19_000.0),),
)


def row(case, threads, workers, faces_per_s, speedup=1.0, spread=0.02):
    return ThroughputRow(case, threads, workers, None, faces_per_s, faces_per_s, speedup, spread)


MEASURED = Throughput(
    rows=(row("infer", None, 1, 100), row("one core", 1, 1, 125), row("infer", 1, 2, 200, 2.0)),
    **{"artifact": "tiny/int8.onnx", "faces": 9, "seconds": 1.0, "rounds": 3},
    **{"machine": machine(), "background_share": 0.0, "stages": STAGES},
)
MEASURED = replace(MEASURED, machine=replace(MEASURED.machine, cores=2))


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "throughput.json"
    path.write_text(json.dumps(asdict(MEASURED)))
    return path


def test_calls_and_files_are_measured(artifact, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "usable_cores", lambda: 2)
    out = tmp_path / "throughput.json"
    asked = ["--artifact", str(artifact), "--faces", "3", "--seconds", "0.01", "--rounds", "1"]
    assert throughput.main([*asked, "--out", str(out)]) == 0
    assert "faces/CPU s" in capsys.readouterr().out
    measured = read_throughput(out)
    assert [(row.case, row.threads, row.workers) for row in measured.rows] == [
        ("run", None, 1),
        ("run", None, 1),
        ("run", 1, 1),
        ("run", 1, 2),
        ("run", 1, 2),
        ("infer", None, 1),
        ("one core", 1, 1),
        ("infer", 1, 2),
    ]
    assert all(row.faces_per_s > 0 and row.faces_per_cpu_s > 0 for row in measured.rows)
    assert measured.rows[0].speedup == measured.rows[5].speedup == 1
    assert [stage.stage for stage in measured.stages.stages] == ["decode", "network", "encode"]
    assert all(stage.ms > 0 for stage in measured.stages.stages)
    fast, small = (
        min(measured.stages.png, key=lambda one: getattr(one, field)) for field in ("ms", "bytes")
    )
    assert fast != small
    assert len(simulate(measured)) == len(scale.CORES)


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


def test_what_limits_a_machine_and_what_it_costs():
    """125 faces/s of a core, 80 % of which two cores keep; 20 kB a face."""
    by_cores = {row.cores: row for row in simulate(MEASURED, Inputs(price=0.5, disk_mb_s=25))}
    four = by_cores[4]
    assert (four.faces_per_s, four.mb_per_s) == (400, 8)
    assert four.limit == "network (75% of a core's time)"
    assert four.hours["1 M"] == pytest.approx(1e6 / 400 / 3600)
    assert four.cost["1 M"] == pytest.approx(four.hours["1 M"] * 4 * 0.5)
    assert [by_cores[cores].limit for cores in (8, 16)] == [four.limit, "disk"]
    assert by_cores[96].faces_per_s == 25e6 / 20e3
    assert by_cores[96].cost["1 G"] > by_cores[4].cost["1 G"]  # cores that wait for the disk
    (slow,) = (row for row in simulate(MEASURED, Inputs(link_mb_s=1)) if row.cores == 2)
    assert (slow.limit, slow.faces_per_s) == ("link", 50)


def test_the_simulation_is_a_command(written, capsys):
    assert scale.main(["--throughput", str(written), "--price", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs"]["price"] == 2
    assert [row["cores"] for row in found["rows"]] == list(scale.CORES)
    assert scale.main(["--throughput", str(written), "--disk-mb-s", "0"]) == EXIT_USAGE
    written.write_text("{}")
    assert scale.main(["--throughput", str(written)]) == EXIT_ERROR
    assert "is not what benchmarks.studies.throughput writes" in capsys.readouterr().err


def test_published_tables_say_what_was_measured_and_assumed():
    text = scale.scale_table(MEASURED)
    assert "125 faces/s on one core and 200 on 2, 80% of as many times one" in text
    assert "0.05 for an hour of a core" in text
    tables = throughput_tables(replace(MEASURED, background_share=0.4))
    assert "**40% of the cores were busy.**" in tables
    assert "| run-length, level 1 | 1.00 | 19.0 |" in tables


@pytest.mark.parametrize(
    ("speedup", "share", "wide", "slower", "busy"),
    [
        (1.85, 0.0, False, 0, 0),
        (1.75, 0.0, False, 1, 0),
        (1.75, 0.0, True, 0, 0),
        (0.9, 0.0, True, 1, 0),
        (0.9, 0.5, False, 0, 1),
    ],
)
def test_the_gate_of_throughput(written, monkeypatch, speedup, share, wide, slower, busy):
    monkeypatch.setattr(throughput_regression, "usable_cores", lambda: 2)
    monkeypatch.setattr(throughput_regression, "background_share", lambda seconds: 0.0)
    rows = (*MEASURED.rows[:2], replace(MEASURED.rows[2], speedup=speedup))
    now = replace(MEASURED, rows=rows, background_share=share)
    found = compare_throughput(Path(MEASURED.artifact), written, wide=wide, measure=lambda *_: now)
    assert (len(found.slower), len(found.not_comparable)) == (slower, busy)
    assert len(found.compared) == 1 - busy


def test_what_was_measured_on_a_busy_machine_is_no_measure(written, monkeypatch):
    monkeypatch.setattr(throughput_regression, "usable_cores", lambda: 2)
    written.write_text(json.dumps(asdict(replace(MEASURED, background_share=0.4))))
    (note,) = compare_throughput(Path("x"), written).notes
    assert "the machine was busy when" in note


def test_another_machine_is_not_compared(written, monkeypatch):
    monkeypatch.setattr(throughput_regression, "usable_cores", lambda: 64)
    (note,) = compare_throughput(Path("x"), written).notes
    assert "is not of 64 cores" in note
