"""README's tables are what was measured, and nothing typed by hand."""

import json
from pathlib import Path

import pytest

from aminet.config import MODELS
from aminet.info import ModelInfo
from benchmarks import publish
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
    (tmp_path / publish.MEASURED).mkdir(parents=True)
    contents = {
        "latency": {"rows": rows, "machine": machine(), "notes": []},
        "quality": {
            "rows": [accuracy("bicubic", "pillow", 24.0), accuracy("tiny", "torch", 27.25)]
        },
        "drift": {"rows": [DRIFT]},
        "ratios": {"rows": [{**RATIO, "artifact": DRIFT["artifact"]}]},
    }
    for name, content in contents.items():
        (tmp_path / publish.MEASURED / f"{name}.json").write_text(json.dumps(content))
    path = tmp_path / "README.md"
    places = [
        f"{begin(name)}\nold\n{end(name)}" for name in ("speed", "quality", "models", "drift")
    ]
    path.write_text("\n\n".join(["before", *places, "after\n"]))
    return path


def begin(name):
    return publish.BEGIN.format(name)


def end(name):
    return publish.END.format(name)


def accuracy(artifact, backend, psnr_y):
    return {
        **{"artifact": artifact, "backend": backend, "data": "val", "n": 9},
        **{"psnr_y": psnr_y, "ssim_y": 0.7, "psnr_rgb": 22.0, "gain": psnr_y - 24.0},
    }


DRIFT = {
    **{"artifact": "tiny/int8.onnx", "backend": "onnxruntime", "emulated": False, "faces": 9},
    **{"calibrated_with": "its own set", "fidelity_db": 52.0, "drift_db": 0.0061},
    **{"worst_drift_db": 0.07, "int8_mac_share": 0.96, "reverted": 0, "share_of_bytes": 0.28},
}
RATIO = {"backend": "onnxruntime", "p50_ms": 4.0, "of_fp32": 2.5, "of_best_fp32": 2.25}


def table(text, name):
    """The lines of a table between its markers, without the head."""
    part = text.partition(begin(name))[2].partition(end(name))[0]
    return [line for line in part.splitlines() if line.startswith("|")][2:]


def test_tables_stand_between_their_markers(page):
    assert publish.main([]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n\n{begin('speed')}\n")
    assert text.endswith(f"\n{end('drift')}\n\nafter\n")
    assert "\nold\n" not in text
    speed = table(text, "speed")
    assert speed[0].startswith("| **tiny/int8.onnx** | onnxruntime | int8 | 4.00 |")
    assert speed[1].startswith("| torch eager |")
    assert len(speed) == 2
    assert table(text, "quality") == ["| val | 9 | **27.25** | 24.00 | +3.25 | 0.700 | 0.700 |"]
    models = table(text, "models")
    assert [line.split(" | ")[0] for line in models] == [f"| {model}" for model in MODELS]
    (drift,) = table(text, "drift")
    assert "| 0.006 | 0.070 | 96.0% | 0.28x | 2.50x | 2.25x |" in drift


def test_models_are_what_their_weights_say():
    models = [
        ModelInfo("small", 3_691_000, 790_000_000, "w", "0a", 27.443, 472.4),
        ModelInfo("large", 15_800_000, 15_570_000_000),
    ]
    small, large = publish.models_table(models).splitlines()[2:]
    said = "27.44 dB PSNR-Y on celeba-val, after 472 minutes of training"
    assert small == f"| small | 3.69 M | 0.79 G | {said} |"
    assert large == "| large | 15.80 M | 15.57 G | not trained yet |"


def test_again_it_is_the_same_and_a_change_is_found(page, capsys):
    assert publish.main(["--check"]) == EXIT_ERROR
    assert "README.md: its tables are not of" in capsys.readouterr().err
    assert publish.main([]) == 0
    assert publish.main(["--check"]) == 0
    page.write_text(page.read_text().replace("4.00", "3.00"))
    assert publish.main(["--check"]) == EXIT_ERROR


def test_a_busy_machine_is_said(page):
    path = page.parent / publish.MEASURED / "latency.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "notes": ["the machine was busy", "b.onnx: left out"]}))
    assert publish.main([]) == 0
    assert "**the machine was busy**" in page.read_text()
    assert "left out" not in page.read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("README.md", "no place", "README.md: has no place for a table"),
        ("docs/measured/latency.json", "{}", "is not what benchmarks.latency writes"),
        ("docs/measured/quality.json", '{"rows": [{}]}', "is not what benchmarks.accuracy writes"),
        ("docs/measured/drift.json", "[]", "is not what benchmarks.studies.real_faces writes"),
    ],
)
def test_what_is_missing_is_named(page, name, content, message, capsys):
    (page.parent / name).write_text(content)
    assert publish.main([]) == EXIT_ERROR
    assert message in capsys.readouterr().err


def test_the_projects_own_tables_are_what_was_measured():
    arguments = ["--readme", str(ROOT / "README.md"), "--measured", str(ROOT / publish.MEASURED)]
    assert publish.main([*arguments, "--check"]) == 0
