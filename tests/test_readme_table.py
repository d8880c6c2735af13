"""README's table of speed is what was measured, and nothing typed by hand."""

import json
from pathlib import Path

import pytest

from benchmarks import readme
from runtime.errors import EXIT_ERROR
from test_report import machine, row

ROOT = Path(__file__).parent.parent


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        row("torch eager", 30.0, 100.0, peer=True),
        row("tiny/int8.onnx", 4.0, 52.0),
        row("tiny/int8.onnx", 9.0, 52.0, threads=1),
        row("tiny/int8.onnx", 31.0, 52.0, batch=8),
    ]
    measured = tmp_path / "docs" / "measured" / "latency.json"
    measured.parent.mkdir(parents=True)
    measured.write_text(json.dumps({"rows": rows, "machine": machine(), "notes": []}))
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{readme.BEGIN}\nold\n{readme.END}\n\nafter\n")
    return path


def test_table_stands_between_the_markers(page):
    assert readme.main([]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n\n{readme.BEGIN}\n")
    assert text.endswith(f"\n{readme.END}\n\nafter\n")
    assert "\nold\n" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[2].startswith("| **tiny/int8.onnx** | onnxruntime | int8 | 4.00 |")
    assert table[3].startswith("| torch eager |")
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1


def test_again_it_is_the_same_and_a_change_is_found(page, capsys):
    assert readme.main(["--check"]) == EXIT_ERROR
    assert "README.md: its table is not of" in capsys.readouterr().err
    assert readme.main([]) == 0
    assert readme.main(["--check"]) == 0
    page.write_text(page.read_text().replace("4.00", "3.00"))
    assert readme.main(["--check"]) == EXIT_ERROR


def test_a_busy_machine_is_said(page):
    path = page.parent / readme.MEASURED
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "notes": ["the machine was busy", "b.onnx: left out"]}))
    assert readme.main([]) == 0
    assert "**the machine was busy**" in page.read_text()
    assert "left out" not in page.read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("README.md", "no place", "README.md: has no place for the table"),
        ("docs/measured/latency.json", "{}", "is not what benchmarks.latency writes"),
    ],
)
def test_what_is_missing_is_named(page, name, content, message, capsys):
    (page.parent / name).write_text(content)
    assert readme.main([]) == EXIT_ERROR
    assert message in capsys.readouterr().err


def test_the_projects_own_table_is_what_was_measured():
    path = ROOT / "README.md"
    if readme.BEGIN not in path.read_text():
        pytest.skip("README.md has no generated table yet")
    arguments = ["--readme", str(path), "--measured", str(ROOT / readme.MEASURED), "--check"]
    assert readme.main(arguments) == 0
