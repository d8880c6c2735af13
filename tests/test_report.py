"""The report: one file, right in what it recommends, legible in a real browser of any width."""

import json
import re
import shutil

import pytest

from benchmarks import charts, report, report_page
from benchmarks.harness.chromium import find_chromium, open_page
from benchmarks.harness.rows import LatencyRow
from quantize import precision
from runtime.cpu import processor
from runtime.errors import EXIT_ERROR, EdgeError
from runtime.manifest import read_manifest

BUDGET_DB = 48.0


def row(name, p50_ms, fidelity_db, *, baseline=False, **more):
    """A row as benchmarks.latency writes it."""
    return {
        **{"name": name, "model": "tiny", "backend": "onnxruntime", "precision": "int8"},
        **{"baseline": baseline, "sha256": None, "batch": 1, "threads": 2, "runs": 9},
        **{"p50_ms": p50_ms, "p95_ms": p50_ms, "p99_ms": p50_ms, "faces_per_s": 1e3 / p50_ms},
        **{"speedup_vs_fp32": 9 / p50_ms, "speedup_vs_eager": 30 / p50_ms},
        **{"speedup_vs_best_baseline": 8 / p50_ms, "best_baseline": "NNCF"},
        **{"share_of_peak": 0.25, "peak_mib": 90, "cold_start_ms": 300, "bytes": 5_000_000},
        **{"fidelity_db": fidelity_db, "background_share": 0.0, "rounds_ms": [p50_ms]},
        **more,
    }


def rows_of(*rows):
    return [LatencyRow(**one) for one in rows]


def machine():
    return {
        **{"processor": processor(), "level": "avx512_vnni", "cores": 2, "system": "Linux x86_64"},
        **{"python": "3.11", "versions": {"torch": "2.13.0"}, "commit": "abc", "date": "today"},
        "load_average": [0.1, 0.1, 0.1],
    }


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """The report of a tiny model, whose speed was measured before, in a folder of its own."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("fp32.onnx", "int8.onnx"):
        for path in (tiny_model / name, tiny_model / f"{name}.json", tiny_model / "probes.npz"):
            shutil.copy(path, folder)
    hashes = {name: read_manifest(folder / f"{name}.onnx").sha256 for name in ("fp32", "int8")}
    rows = [
        row("torch eager", 30.0 * batch, 100.0, baseline=True, batch=batch, backend="torch")
        for batch in (1, 8)
    ]
    for batch in (1, 8):
        rows.append(row("tiny/fp32.onnx", 9.0 * batch, 99.0, sha256=hashes["fp32"], batch=batch))
        rows.append(row("tiny/int8.onnx", 4.0 * batch, 52.0, sha256=hashes["int8"], batch=batch))
    rows.append(row("NNCF <INT8> & co", 5.0, 41.0, baseline=True, backend="openvino"))
    peak = {"precision": "int8", "threads": 2, "gmacs_per_s": 900.0, "reached_by": "a product"}
    content = {"rows": rows, "peaks": [peak], "machine": machine(), "seconds": 3, "notes": []}
    (folder / "latency.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(precision, "TIMED_RUNS", 5)
        report_page.write_report(
            folder, folder / "report.html", folder / "latency.json", [tiny_model / "face-*.png"]
        )
    return folder / "report.html"


def test_it_is_one_file_that_asks_for_nothing(made):
    page = made.read_text()
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    outside = [a for a in addresses if not a.startswith(("data:", "#"))]
    assert outside == []
    assert "default-src 'none'" in page
    assert len(page) < 3_000_000


def test_all_sections_and_charts_are_there(made):
    page = made.read_text()
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "Latency and quality",
        "Faces",
        "Fidelity of each file in each backend",
        "Time by kind of operator",
        "Sensitivity of the layers to INT8",
        "Effective precision",
        "Batches and threads",
        "Machine and versions",
    ]
    assert page.count("<svg") == 5
    assert page.count('type="range"') == 5
    assert page.count("data:image/png") == 5 * 2 + 5 * 5
    assert "NNCF &lt;INT8&gt; &amp; co" in page
    assert processor().split("(")[0] in page


def test_ids_of_the_charts_are_unique(made):
    ids = re.findall(r'\bid="([^"]+)"', made.read_text())
    assert len(ids) == len(set(ids))


def test_charts_take_the_pages_text_color(made):
    page = made.read_text()
    assert charts.INK not in page
    assert page.count("currentColor") > 50


def test_in_a_real_browser(made, tmp_path):
    chromium = find_chromium()
    if not chromium:
        pytest.skip("chromium is not installed: the page was not opened in a browser")
    cut = "getComputedStyle(document.getElementById('compare-1')).getPropertyValue('--cut').trim()"
    clip = "getComputedStyle(document.querySelector('#compare-1 .over')).clipPath"
    paper = "getComputedStyle(document.body).backgroundColor"
    overflow = "document.documentElement.scrollWidth - innerWidth"
    cut_off = (
        "[...document.querySelectorAll('td')].filter(cell => cell.scrollWidth > cell.clientWidth"
        " || cell.getBoundingClientRect().right > innerWidth).length"
    )
    labels = "getComputedStyle(document.querySelector('#latency td:nth-child(5)'), '::before')"
    with open_page(chromium) as page:
        page.resize(1280, 900)
        page.prefer("light")
        page.open(made)
        assert page.evaluate("document.querySelectorAll('svg').length") == 5
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert page.evaluate(cut) == "50%"
        page.drag("input[data-compare=compare-1]", 0.5, 0.2)
        moved = float(page.evaluate(cut).rstrip("%"))
        assert 10 < moved < 30
        assert f"{moved:g}%" in page.evaluate(clip)
        assert page.evaluate(paper) == "rgb(255, 255, 255)"
        assert page.evaluate(overflow) <= 0
        assert page.evaluate(cut_off) == 0
        page.screenshot(tmp_path / "light.png")
        page.prefer("dark")
        page.resize(390, 844, phone=True)
        assert page.evaluate(paper) == "rgb(20, 24, 28)"
        assert page.evaluate(overflow) <= 0
        assert page.evaluate(cut_off) == 0
        assert page.evaluate(f"{labels}.content") == '"p50 ms"'  # each figure has its name
        page.screenshot(tmp_path / "dark-phone.png")
        assert page.problems == []
    assert (
        min((tmp_path / name).stat().st_size for name in ("light.png", "dark-phone.png")) > 20_000
    )


def test_the_browser_would_tell_of_an_error(tmp_path):
    chromium = find_chromium()
    if not chromium:
        pytest.skip("chromium is not installed")
    path = tmp_path / "broken.html"
    path.write_text("<img src='https://example.invalid/a.png'><script>absent()</script>")
    with open_page(chromium) as page:
        page.open(path)
        printed = " ".join(page.problems)
    assert "Uncaught" in printed
    assert "https://example.invalid" in printed


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [row("m/int8.onnx", 4, 52), row("m/fp32.onnx", 9, 99), row("X", 8, 60, baseline=True)],
            r"Deploy int8.onnx in onnxruntime: 4.00 ms a face, 2.25x FP32 in onnxruntime, 7.50x"
            r" torch eager; 5.0 MB, 52.0 dB to FP32 where the budget asks for 48.0. The fastest"
            r" off-the-shelf baseline within the budget, X, takes 8.00 ms at 5.0 MB.$",
        ),
        (
            [row("m/int8.onnx", 4, 40), row("m/fp32.onnx", 9, 99)],
            r"Deploy fp32.onnx in onnxruntime: 9.00 ms a face, 3.33x torch eager; 5.0 MB",
        ),
        (
            [row("m/int8.onnx", 4, 52), row("X", 3, 60, baseline=True)],
            r"within the budget, X, takes 3.00 ms",
        ),
        (
            [row("m/int8.onnx", 4, 52), row("X", 3, 41, baseline=True)],
            r"asks for 48.0.$",
        ),
        ([row("m/int8.onnx", 4, 40)], r"Deploy nothing yet"),
    ],
)
def test_what_to_deploy_follows_from_the_rows(rows, sentence):
    verdict = report_page.what_to_deploy(rows_of(*rows), BUDGET_DB, busy=False)
    assert re.search(sentence, verdict)


def test_the_verdict_has_the_figures_of_the_table():
    rows = rows_of(row("m/int8.onnx", 4.126, 52.04, speedup_vs_fp32=2.254), row("m/b.onnx", 9, 99))
    verdict = report_page.what_to_deploy(rows, BUDGET_DB, busy=False)
    ms, vs_fp32, vs_eager = (report_page.cells(rows[0])[column] for column in (3, 5, 6))
    assert all(cell in verdict for cell in (f"{ms} ms", f"{vs_fp32} FP32", f"{vs_eager} torch"))


def test_a_busy_machine_gives_no_multiple():
    rows = rows_of(row("m/int8.onnx", 4, 52), row("X", 8, 60, baseline=True))
    verdict = report_page.what_to_deploy(rows, BUDGET_DB, busy=True)
    assert not re.search(r"\d+x", verdict)
    assert verdict.endswith("The machine was busy, so no speed-up is given.")


def test_points_are_numbered_from_the_fastest():
    points = report_page.number(rows_of(row("slow", 9, 99), row("fast", 4, 50)))
    assert [(point["number"], point["name"]) for point in points] == [(1, "fast"), (2, "slow")]
    assert {len(point["cells"]) for point in points} == {len(report_page.COLUMNS)}


def test_a_number_that_makes_room_stays_on_its_side_of_the_budget():
    fidelities_db = (57.0, 53.0, 49.0, 45.0, 47.0)
    points = report_page.number(rows_of(*(row(f"{db}", 4.0, db) for db in fidelities_db)))
    drawn = charts.pareto(points, 48.0)
    texts = re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>(.*?)<', drawn)
    heights = {text: float(y) for y, text in texts}
    below = [heights[str(point["number"])] for point in points if point["fidelity_db"] < 48]
    above = [heights[str(point["number"])] for point in points if point["fidelity_db"] >= 48]
    assert len(set(below + above)) == 5
    assert max(above) < heights["budget 48.0 dB"] + 20 < min(below)  # an SVG's y points down


def test_speed_of_another_machine_or_of_other_files_is_not_shown(tmp_path, tiny_model):
    path = tmp_path / "latency.json"
    content = {"rows": [row("a", 1, 50)], "machine": machine(), "notes": []}
    content |= {"peaks": [], "seconds": 3}
    for processor_name in ("an abacus", processor()):
        content["machine"]["processor"] = processor_name
        path.write_text(json.dumps(content))
        notes = []
        assert report_page.find_latency(path, tiny_model, notes) is None
        assert "speed was measured anew" in notes[0]
    path.write_text("[]")
    with pytest.raises(EdgeError, match=r"is not what benchmarks.latency writes"):
        report_page.find_latency(path, tiny_model, [])


def test_without_artifacts_the_fix_is_named(tmp_path, capsys):
    assert report.main(["--artifacts", str(tmp_path), "--out", str(tmp_path / "r")]) == EXIT_ERROR
    assert "fp32.onnx: not found. Create it with: make demo" in capsys.readouterr().err
