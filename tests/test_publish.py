"""The tables of README.md and docs/ are what was measured, and nothing typed by hand."""

import json
import re
from pathlib import Path

import pytest

from aminet.config import MODELS
from aminet.info import ModelInfo
from benchmarks import publish, results
from benchmarks.published import TABLES, render
from runtime.errors import EXIT_ERROR, EdgeError
from test_report import machine, row

ROOT = Path(__file__).parent.parent
PLACED = ("speed", "latency", "roofline", "quality", "paper", "drift", "quantizers", "coldstart")


def test_no_measurement_names_a_place_on_the_machine_that_made_it():
    for path in (ROOT / "docs" / "measured").glob("*.json"):
        assert not re.search(r'"/\w+/', path.read_text()), path


def scored(artifact, backend, psnr_y, data="val", **more):
    return {
        **{"artifact": artifact, "backend": backend, "data": data, "n": 9},
        **{"psnr_y": psnr_y, "ssim_y": 0.7, "psnr_rgb": 22.0, "gain": psnr_y - 24.0},
        **more,
    }


def drift_of(calibrated_with, **more):
    return {
        **{"artifact": "tiny/int8.onnx", "backend": "onnxruntime", "emulated": False, "faces": 9},
        **{"calibrated_with": calibrated_with, "fidelity_db": 52.0, "drift_db": 0.0061},
        **{"worst_drift_db": 0.07, "int8_mac_share": 0.96, "reverted": 0, "share_of_bytes": 0.28},
        **more,
    }


QUANTIZERS = {
    "rows": [
        {
            **{"quantizer": "quantize.int8, cpu", "observer": "min/max", "backend": "onnxruntime"},
            **{"bytes": 5_000_000, "fidelity_db": 52.0, "worst_fidelity_db": 50.0},
            **{"drift_db": None, "worst_drift_db": None, "int8_mac_share": 0.988},
        }
    ],
    **{"model": "aminet-edge", "checkpoint_sha256": "", "calibration_faces": 96},
    **{"real_faces": 0, "processor": "a processor", "versions": {"onnxruntime": "1.31"}},
}
LATENCY = {
    "rows": [
        row("torch eager", 30.0, 100.0, baseline=True, backend="torch", speedup_vs_fp32=None),
        row("tiny/int8.onnx", 4.0, 52.0, speedup_vs_fp32=2.5),
        row("tiny/int8.onnx", 9.0, 52.0, threads=1),
        row("tiny/int8.onnx", 31.0, 52.0, batch=8),
    ],
    "peaks": [{"precision": "int8", "threads": 2, "gmacs_per_s": 400.0, "reached_by": "a product"}],
    **{"machine": machine(), "seconds": 3.0, "notes": []},
}
MEASURED = {
    "latency": LATENCY,
    "quality": {
        "rows": [
            scored("bicubic", "pillow", 24.0),
            scored("tiny int8", "onnxruntime", 27.0),
            scored("tiny", "torch", 27.25),
            scored("tiny", "torch", 26.25, data="helen-test", lpips=0.27),
        ][:3]
    },
    "drift": {
        "rows": [
            drift_of("synthetic faces"),
            drift_of("128 real faces"),
            drift_of("synthetic faces", emulated=True),
        ]
    },
    "quantizers": QUANTIZERS,
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """README.md and a page of docs with tables to fill in, and what was measured."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / publish.MEASURED).mkdir(parents=True)
    for name, content in MEASURED.items():
        (tmp_path / publish.MEASURED / f"{name}.json").write_text(json.dumps(content))
    places = [f"{begin(name)}\nold\n{end(name)}" for name in PLACED]
    (tmp_path / "README.md").write_text("\n\n".join(["before", *places, "after\n"]))
    (tmp_path / "docs" / "speed.md").write_text(f"{begin('speed')}\n{end('speed')}\n")
    (tmp_path / "docs" / "concepts.md").write_text("no tables\n")
    return tmp_path


def begin(name):
    return publish.BEGIN.format(name)


def end(name):
    return publish.END.format(name)


def table(text, name):
    """The lines of a table between its markers, without the head."""
    part = text.partition(begin(name))[2].partition(end(name))[0]
    return [line for line in part.splitlines() if line.startswith("|")][2:]


def test_tables_stand_between_their_markers_in_all_pages(root, capsys):
    assert publish.main([]) == 0
    assert capsys.readouterr().out.split() == ["README.md", "docs/speed.md"]
    text = (root / "README.md").read_text()
    assert text.startswith(f"before\n\n{begin('speed')}\n")
    assert text.endswith(f"\n{end('coldstart')}\n\nafter\n")
    assert "\nold\n" not in text
    assert table(text, "speed") == table((root / "docs" / "speed.md").read_text(), "speed")


def test_speed_is_of_one_face_on_all_cores_the_fastest_first(root):
    publish.main([])
    first, second = table((root / "README.md").read_text(), "speed")
    assert first.startswith("| **tiny/int8.onnx** | onnxruntime | int8 | 4.00 | 4.00 | 2.50x |")
    assert second.startswith("| torch eager | torch | int8 | 30.00 | 30.00 |  |")


def test_all_rows_are_grouped_by_what_compares(root):
    publish.main([])
    text = (root / "README.md").read_text()
    titles = [line for line in text.splitlines() if line.startswith("### tiny")]
    groups = ("batch 1, 2 threads", "batch 1, 1 thread", "batch 8, 2 threads")
    assert titles == [f"### tiny, {group}" for group in groups]
    assert "| tiny/int8.onnx | onnxruntime | 2 | 1.0 | 4.0 | 4.0 |" in table(text, "roofline")


def test_quality_is_the_networks_and_the_papers_stands_beside_all(root):
    publish.main([])
    text = (root / "README.md").read_text()
    assert table(text, "quality") == ["| val | 9 | **27.25** | 24.00 | +3.25 | 0.700 | 0.700 |"]
    assert "| tiny int8 (onnxruntime) | +3.00 | 27.00 | 0.7000 |" in table(text, "paper")
    small, large = (scored(name, "torch", psnr) for name, psnr in (("s", 26.0), ("l", 27.0)))
    rows = [results.QualityRow(**one) for one in (scored("bicubic", "pillow", 24.0), small, large)]
    titles = [line for line in results.network_quality(rows).splitlines() if line.startswith("#")]
    assert titles == ["### s", "### l"]
    rows = [scored("bicubic", "pillow", 23.5, data="helen-test", lpips=0.61)]
    page = results.paper_tables([results.QualityRow(**one) for one in rows])
    assert "| *the paper's AMINet* | +4.06 | 27.01 | 0.8042 | 0.2067 |" in page
    assert "VIF" not in page  # not measured


def test_a_speed_stands_only_beside_the_file_that_was_timed(root):
    """Neither beside a file that other faces calibrated, nor beside one for another runtime."""
    publish.main([])
    timed, real, proxy = table((root / "README.md").read_text(), "drift")
    assert "| synthetic faces | 0.006 | 0.070 | 96.0% | 0.28x | 2.50x |" in timed
    assert real.endswith("| 0.28x |  |")
    assert "onnxruntime (proxy for TensorRT)" in proxy
    assert proxy.endswith("| 0.28x |  |")


def test_quantizers_stand_with_the_faces_that_evaluated_them(root):
    publish.main([])
    text = (root / "README.md").read_text()
    assert "aminet-edge, calibrated with 96 faces, drift on no real faces, a processor" in text
    expected = "52.0 | 50.0 |  |  | 98.8% | 5.0 |"
    row = f"| quantize.int8, cpu | min/max | onnxruntime | {expected}"
    assert table(text, "quantizers") == [row]


def test_what_was_not_measured_names_its_command(root):
    publish.main([])
    text = (root / "README.md").read_text()
    assert "*Not measured yet: `python -m benchmarks.studies.coldstart --out" in text


def test_models_are_what_their_weights_report():
    models = [
        ModelInfo("small", 3_691_000, 790_000_000, "w", "0a", 27.443, 472.4),
        ModelInfo("large", 15_800_000, 15_570_000_000),
    ]
    small, large = results.describe_models(models).splitlines()[2:]
    weights = "27.44 dB PSNR-Y on celeba-val, after 472 min"
    assert small == f"| small | 3.69 M | 0.79 G | {weights} |"
    assert large == "| large | 15.80 M | 15.57 G | not trained yet |"


def test_costs_are_counted_and_times_are_the_measured_ones(root):
    lines = render("cost", root / publish.MEASURED).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [f"| {model}" for model in MODELS]
    assert "| 15.6 M, 15.6 G |" in next(line for line in lines if line.startswith("| aminet |"))


def test_check_finds_a_page_that_differs_and_changes_nothing(root, capsys):
    before = (root / "README.md").read_text()
    assert publish.main(["--check"]) == EXIT_ERROR
    error = capsys.readouterr().err
    assert "README.md: its tables differ from docs/measured" in error
    assert "docs/speed.md: its tables differ" in error
    assert (root / "README.md").read_text() == before
    assert publish.main([]) == 0
    assert publish.main(["--check"]) == 0
    (root / "README.md").write_text((root / "README.md").read_text().replace("4.00", "3.00"))
    assert publish.main(["--check"]) == EXIT_ERROR


def test_a_busy_machine_is_published(root):
    path = root / publish.MEASURED / "latency.json"
    notes = ["the machine was busy", "b.onnx: left out"]
    path.write_text(json.dumps({**LATENCY, "notes": notes}))
    assert publish.main([]) == 0
    text = (root / "README.md").read_text()
    assert "**the machine was busy**" in text
    assert "left out" not in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("README.md", begin("speed"), "has no end. Add the line <!-- end of speed -->"),
        ("README.md", begin("wealth"), "no table is called 'wealth', expected one of ablation"),
        ("docs/measured/latency.json", "{}", "is not what benchmarks.latency writes"),
        ("docs/measured/latency.json", "[", "is not what benchmarks.latency writes"),
        ("docs/measured/quality.json", '{"rows": [{}]}', "is not what benchmarks.accuracy writes"),
        ("docs/measured/drift.json", "[]", "is not what benchmarks.studies.real_faces writes"),
    ],
)
def test_what_cannot_be_published_is_one_line(root, name, content, message, capsys):
    if "wealth" in content:
        content = f"{content}\n{end('wealth')}"
    (root / name).write_text(content)
    assert publish.main([]) == EXIT_ERROR
    assert message in capsys.readouterr().err


def test_other_columns_than_the_schemas_are_named(root):
    rows = [{**LATENCY["rows"][0], "sharpness": 1.0}]
    path = root / publish.MEASURED / "latency.json"
    path.write_text(json.dumps({**LATENCY, "rows": rows}))
    with pytest.raises(EdgeError, match="unexpected or missing: sharpness"):
        render("speed", path.parent)


def test_the_projects_own_tables_are_what_was_measured(capsys):
    assert publish.main(["--root", str(ROOT), "--check"]) == 0, capsys.readouterr().err


def test_the_list_of_files_has_each_module_with_its_first_line():
    lines = render("files", ROOT / publish.MEASURED).splitlines()[2:]
    expected = (
        "Write the measured tables into README.md and docs/*.md: `python -m benchmarks.publish`"
    )
    assert f"| `benchmarks/publish.py` | {expected} |" in lines
    assert len(lines) == len(set(lines)) > 100


def test_every_table_has_a_place():
    pages = "".join(path.read_text() for path in publish.find_pages(ROOT))
    placed = publish.MARKER.findall(pages)
    assert set(placed) <= TABLES.keys()
    assert TABLES.keys() - {"targets"} <= set(placed)
