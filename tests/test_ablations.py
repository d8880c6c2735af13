"""All ablations with one command: trained, resumed, and set out as the paper's tables."""

import json
from pathlib import Path

import pytest

from aminet.config import ABLATIONS
from benchmarks.ablations import RESULT, TABLES, main
from runtime.errors import EXIT_USAGE
from tiny_training import write_disks


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_disks(tmp_path_factory.mktemp("faces"), 8)


def test_every_ablation_is_in_a_table() -> None:
    assert {name for names in TABLES.values() for name in names} == set(ABLATIONS)


def test_a_rehearsal_trains_resumes_and_writes_the_tables(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(faces), "--val", str(faces), "--out", str(tmp_path / "runs")]
    words += ["--steps", "2", "--batch", "4", "--device", "cpu", "--rehearse", "--json"]
    assert main([*words, "--only", "base"]) == 0
    assert main([*words, "--only", "base", "without-sa"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [row["ablation"] for row in second["rows"]] == ["base", "without-sa"]
    assert second["rows"][0] == first["rows"][0]  # not trained again
    assert second["rows"][1]["params"] < second["rows"][0]["params"]
    assert json.loads((tmp_path / "runs" / RESULT).read_text()) == second
    assert main([*words[:-1], "--only", "base", "without-sa"]) == 0
    shown = capsys.readouterr().out
    assert "Table I: LGFI (rehearsal" in shown
    assert "| without-sa |" in shown
    assert "Table II" not in shown  # nothing of it was trained


def test_neither_minutes_nor_steps_is_a_usage_error(faces: Path, tmp_path: Path) -> None:
    words = ["--data", str(faces), "--val", str(faces), "--out", str(tmp_path)]
    assert main(words) == EXIT_USAGE
