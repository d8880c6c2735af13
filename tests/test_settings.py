"""ONNX Runtime's settings, timed beside its defaults; here only whether they arrive."""

import json

import pytest

from benchmarks.harness.machine import cores
from benchmarks.studies import settings
from runtime.errors import EXIT_ERROR, EXIT_USAGE

CHANGED = ("no optimizations", "no spinning")


@pytest.fixture(scope="module")
def measured(tiny_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("settings") / "settings.json"
    arguments = ["--artifact", str(tiny_model / "int8.onnx"), "--setting", *CHANGED]
    assert settings.main([*arguments, "--seconds", "0.05", "--turns", "1", "--out", str(out)]) == 0
    return out


def test_each_setting_and_each_number_of_threads_has_a_row(measured):
    rows = json.loads(measured.read_text())["rows"]
    counts = [cores(), *range(1, cores())]
    assert [(row["setting"], row["threads"]) for row in rows] == [
        *((settings.DEFAULTS, threads) for threads in counts),
        *((name, cores()) for name in CHANGED),
    ]
    assert rows[0]["times_default"] == 1
    assert all(row["cpu_ms"] > 0 and row["fidelity_db"] > 20 for row in rows)


def test_a_setting_reaches_onnx_runtime(measured):
    """Without optimizations nothing is computed in 8 bits, which rounds differently."""
    rows = {row["setting"]: row for row in json.loads(measured.read_text())["rows"]}
    assert rows["no optimizations"]["fidelity_db"] != rows["no spinning"]["fidelity_db"]


def test_the_page_is_made_of_the_same_figures(measured):
    content = json.loads(measured.read_text())
    page = measured.with_suffix(".md").read_text()
    assert page == settings.markdown(content)
    assert f"| no spinning | {cores()} | {content['rows'][-1]['p50_ms']:.2f} |" in page
    assert "measure again" in settings.markdown({**content, "others_share": 0.5})


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--seconds", "0"], EXIT_USAGE), (["--artifact", "absent.onnx"], EXIT_ERROR)],
)
def test_what_cannot_be_measured_is_one_line(arguments, status, capsys):
    assert settings.main(arguments) == status
    assert len(capsys.readouterr().err.splitlines()) == 1
