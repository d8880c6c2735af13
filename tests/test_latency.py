"""The latency benchmark: candidates are interleaved in processes of their own; load is reported."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from aminet.config import MODELS
from benchmarks import latency
from benchmarks.harness import baselines, candidates, interleaved, machine, measure, roofline
from benchmarks.harness.candidates import find_candidates, is_for
from benchmarks.harness.interleaved import BenchmarkCandidate, Worker, speedup
from benchmarks.harness.measure import measure_latency
from benchmarks.harness.plan import BACKENDS, ON_A_GPU, LatencyPlan
from benchmarks.harness.rows import LatencyRow, read_latency
from benchmarks.results import latency_tables
from export import exporter
from runtime.backends import cuda
from runtime.errors import EXIT_ERROR, EXIT_USAGE, EdgeError
from runtime.manifest import read_manifest
from runtime.progress import silent
from tiny_networks import BATCHED, traced

ROOT = Path(__file__).parent.parent
FAST = ["--seconds", "0.05", "--rounds", "2", "--threads", "1", "--batch", "1", "2"]
FAST += ["--cold-starts", "1"]
BASELINES = ("torch eager", "ONNX Runtime FP32", "ONNX Runtime static INT8")


@pytest.fixture(scope="module")
def measured(tiny_model, tmp_path_factory):
    """What the command writes for a tiny model's artifacts and some baselines."""
    out = tmp_path_factory.mktemp("measured") / "latency.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out.parent)
        patch.setattr(exporter, "trace", lambda network: traced(BATCHED))  # traced once a run
        status = latency.main(
            [
                *("--artifact", *(str(tiny_model / f"{name}.onnx") for name in ("fp32", "int8"))),
                *("--checkpoint", str(tiny_model / "checkpoint.safetensors")),
                *("--baselines", *BASELINES, *FAST, "--out", str(out), "--json"),
            ]
        )
    assert status == 0
    return out


@pytest.fixture
def rows(measured):
    return json.loads(measured.read_text())["rows"]


def test_sharp_versions_and_the_papers_networks_are_timed_when_named(monkeypatch, tmp_path):
    for model in (*MODELS, "mine"):
        (tmp_path / "artifacts" / model).mkdir(parents=True)
        (tmp_path / "artifacts" / model / "int8.onnx").touch()
    monkeypatch.chdir(tmp_path)
    chosen = [path.parent.name for path in candidates._default_artifacts()]
    assert chosen == ["aminet-edge", "aminet-real", "mine"]


def test_artifacts_run_in_each_backend_beside_baselines_of_the_same_network(rows):
    first = [row for row in rows if row["batch"] == 1]
    assert [(row["name"], row["backend"], row["precision"]) for row in first] == [
        ("tiny/fp32.onnx", "onnxruntime", "fp32"),
        ("tiny/fp32.onnx", "openvino", "fp32"),
        ("tiny/int8.onnx", "onnxruntime", "int8"),
        ("tiny/int8.onnx", "openvino", "int8"),
        ("torch eager", "torch", "fp32"),
        ("ONNX Runtime FP32", "onnxruntime", "fp32"),
        ("ONNX Runtime static INT8", "onnxruntime", "int8"),
    ]
    fp32 = [row["fidelity_db"] for row in rows if row["precision"] == "fp32"]
    assert min(fp32) > 80  # the baselines compute the very same network


def test_a_row_has_time_memory_and_background_load(rows):
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["runs"] >= 2
        assert len(row["rounds_ms"]) == 2
        assert row["faces_per_s"] > 0
        assert row["bytes"] > 1000
        assert row["peak_mib"] > 20
        assert row["cold_start_ms"] > 50
        assert row["share_of_peak"] > 0  # under load a peak of 50 ms is no peak
        assert 0 <= row["background_share"] <= 1
    onnx, torch = (
        next(row for row in rows if row["name"] == name)
        for name in ("tiny/fp32.onnx", "torch eager")
    )
    assert onnx["peak_mib"] < torch["peak_mib"]


def test_speedups_are_over_references_of_the_same_batch(rows):
    for row in rows:
        if row["name"] == "torch eager":
            assert row["speedup_vs_eager"] == 1
        if row["name"] == row["best_baseline"]:
            assert row["speedup_vs_best_baseline"] == 1
        if row["name"] == "tiny/fp32.onnx":
            assert row["speedup_vs_fp32"] == 1
    assert len({(row["batch"], row["best_baseline"]) for row in rows}) == 2


def make_row(name, backend, rounds_ms, *, baseline=False, background_share=0.0):
    return LatencyRow(
        *(name, "m", backend, "fp32", baseline, None, 1, 1, 3, sorted(rounds_ms)[1], 0, 0, 0),
        *(None, None, None, None, None, 0, 0, 0, 99.0, background_share, tuple(rounds_ms)),
    )


def test_fp32_is_the_reference_in_each_backend():
    rows = [
        make_row("m/fp32.onnx", "onnxruntime", (4, 4, 4)),
        make_row("m/int8.onnx", "onnxruntime", (2, 2, 2)),
        make_row("m/fp32.onnx", "openvino", (6, 6, 6)),
        make_row("m/int8.onnx", "openvino", (2, 2, 2)),
        make_row("NNCF INT8", "openvino", (3, 3, 3), baseline=True),
        make_row("torch eager", "torch", (9, 9, 9), baseline=True),
    ]
    compared = measure.compare(rows)
    assert [row.speedup_vs_fp32 for row in compared] == [1, 2, 1, 3, 2, None]
    assert [row.speedup_vs_eager for row in compared] == [2.25, 4.5, 1.5, 4.5, 3, 1]
    assert {row.best_baseline for row in compared} == {"NNCF INT8"}


def test_a_speedup_is_a_median_over_rounds():
    """While the machine is half as fast for a round, both are, which a median of times forgets."""
    assert speedup((1, 2, 2), (3, 6, 6)) == 3
    assert speedup((2, 2, 2, 20, 20), (4, 4, 4, 40, 40)) == 2


def test_json_says_on_what_machine(measured):
    content = json.loads(measured.read_text())
    about = content["machine"]
    assert about["level"] in about["processor"]
    assert about["cores"] >= 1
    assert {"torch", "onnxruntime", "openvino"} <= about["versions"].keys()
    assert len(about["load_average"]) == 3
    assert {peak["precision"] for peak in content["peaks"]} >= {"fp32", "int8"}
    assert all(peak["gmacs_per_s"] > 1 for peak in content["peaks"])


def test_the_json_reads_back_as_rows_and_tables(measured, rows):
    read = read_latency(measured)
    assert [row.name for row in read.rows] == [row["name"] for row in rows]
    page = latency_tables(read)
    titles = [line for line in page.splitlines() if line.startswith("### ")]
    assert titles == ["### tiny, batch 1, 1 thread", "### tiny, batch 2, 1 thread"]
    assert page.count("| tiny/int8.onnx |") == 4


def test_candidates_are_interleaved():
    asked = []

    def worker(name):
        def time(batch, seconds):
            asked.append((name, batch, seconds))
            return {"times_ms": [1.0, 3.0], "cpu_s": 0.1, "peak_mib": 5.0}

        return SimpleNamespace(time=time)

    workers = [worker("a"), worker("b")]
    timings = interleaved.time_interleaved(workers, 8, 6.0, rounds=3)
    assert asked == [(name, 8, 2.0) for name in "abababababab"[:6]]
    assert [timing.rounds_ms for timing in timings] == [(2.0, 2.0, 2.0)] * 2
    assert timings[0].p50_ms == 2.0
    assert len(timings[0].times_ms) == 6


TOTAL = "cpu  500 0 500 9999 0 0 0 50 0 0"


def test_background_load_is_what_other_processes_took_of_the_usable_cores(tmp_path, monkeypatch):
    """Two cores for a second: 1.5 s of them were taken, 0.5 s by us; a third core is not ours."""
    stat, now = tmp_path / "stat", iter([0.0, 0.0, 1.0])
    monkeypatch.setattr(machine, "STAT", stat)
    monkeypatch.setattr(machine, "_affinity", lambda: {0, 1})
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(now))
    before = ("cpu0 60 0 30 9999 0 0 0 6 0 0", "cpu1 40 0 20 9999 0 0 0 4 0 0")
    after = ("cpu0 120 0 40 9999 0 0 0 26 0 0", "cpu1 80 0 30 9999 0 0 0 14 0 0")
    stat.write_text("\n".join([TOTAL, *before, "cpu2 5 0 5 9 0 0 0 0 0 0", "intr 1"]))
    load = machine.BackgroundLoad()
    load.start()
    stat.write_text("\n".join([TOTAL, *after, "cpu2 99 0 99 9 0 0 0 0 0 0", "intr 1"]))
    load.stop(own_cpu_s=0.5)
    assert load.share == pytest.approx(0.5)


def test_a_busy_machine_is_noted(monkeypatch):
    row = make_row("a", "b", (1.0, 1.0, 1.0), background_share=0.4)
    monkeypatch.setattr(measure, "find_candidates", lambda *_: [])
    monkeypatch.setattr(measure, "measure_peaks", lambda *_: ())
    monkeypatch.setattr(measure, "measure_rows", lambda *_: [row])
    result = measure_latency(plan=LatencyPlan(threads=(1,)))
    assert result.busy
    (note,) = result.notes
    assert note.startswith("the machine was busy: background processes took 40% of the CPU")
    monkeypatch.setattr(measure, "measure_rows", lambda *_: [replace(row, background_share=0.02)])
    result = measure_latency(plan=LatencyPlan(threads=(1,)))
    assert (result.busy, result.notes) == (False, ())


def test_peak_is_the_best_of_all_kernels(monkeypatch):
    rates = [("fp32", "slow", 10**9, None), ("fp32", "fast", 4 * 10**9, None)]
    monkeypatch.setattr(roofline, "_runs", lambda threads: iter(rates))
    monkeypatch.setattr(roofline, "shortest_seconds", lambda run, seconds: 0.5)
    (peak,) = roofline.measure_peaks(2)
    assert (peak.gmacs_per_s, peak.reached_by, peak.threads) == (8.0, "fast", 2)


def test_kernels_count_their_multiply_adds():
    conv, product, *_ = roofline.KERNELS
    assert conv.macs == 512 * 512 * 9 * 32 * 32
    assert product.macs == 1024**3


def test_other_weights_than_the_artifact_is_made_of_are_refused(tiny_model, capsys):
    arguments = ["--artifact", str(tiny_model / "fp32.onnx"), *FAST]
    committed = ROOT / "aminet" / "weights" / "aminet-edge.safetensors"
    if not committed.is_file():
        pytest.skip(f"{committed} not found")
    assert latency.main([*arguments, "--checkpoint", str(committed)]) == EXIT_ERROR
    error = capsys.readouterr().err
    assert (
        f"{committed}: is not the checkpoint that {tiny_model / 'fp32.onnx'} was made of" in error
    )


def test_files_for_tensorrt_are_left_out_and_noted(tiny_model):
    path, checkpoint = tiny_model / "int8-trt.onnx", tiny_model / "checkpoint.safetensors"
    notes = []
    assert find_candidates([path], BACKENDS, (), checkpoint, silent, notes.append) == []
    assert notes == [f"{path}: is for tensorrt, which is not measured here"]
    assert is_for(read_manifest(tiny_model / "int8.onnx"), "openvino")


def test_on_a_gpu_they_are_timed_and_what_does_not_run_there_is_noted(tiny_model):
    if cuda.has_device():
        pytest.skip("there is a GPU here")
    paths = [tiny_model / name for name in ("fp32.onnx", "int8-trt.onnx", "int8.onnx")]
    checkpoint, notes = tiny_model / "checkpoint.safetensors", []
    found = find_candidates(paths, ON_A_GPU, (), checkpoint, silent, notes.append)
    assert {(each.file.name, each.backend) for each in found} == {
        (name, f"onnxruntime-{provider}")
        for name in ("fp32.onnx", "int8-trt.onnx")
        for provider in ("cuda", "tensorrt")
    }
    plan = LatencyPlan(threads=(1,), seconds=0.1, rounds=1, cold_starts=1, peaks=False)
    result = measure_latency(paths[:1], ["onnxruntime-cuda"], (), plan, checkpoint)
    assert not result.rows
    assert "no CUDAExecutionProvider" in result.notes[0]


def test_what_is_not_installed_is_left_out_and_noted(tiny_model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(candidates.openvino, "is_installed", lambda: False)
    monkeypatch.setattr(exporter, "trace", lambda network: traced(BATCHED))
    monkeypatch.setitem(sys.modules, "nncf", None)
    notes = []
    checkpoint = tiny_model / "checkpoint.safetensors"
    paths, names = [tiny_model / "fp32.onnx"], ("NNCF INT8",)
    found = find_candidates(paths, BACKENDS, names, checkpoint, silent, notes.append)
    assert [candidate.backend for candidate in found] == ["onnxruntime"]
    assert notes[0].startswith("backend openvino: left out")
    assert notes[1].startswith("NNCF INT8: nncf is not installed; pip install 'aminet-edge[bench]'")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--baselines", "keras"], EXIT_USAGE, "--baselines: 'keras' is unknown"),
        (["--seconds", "0"], EXIT_USAGE, "expected over 0"),
        (["--artifact", "absent.onnx"], EXIT_ERROR, r"absent.onnx: not found"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments, status, message, capsys):
    assert latency.main(arguments) == status
    assert message in capsys.readouterr().err


def test_a_worker_that_fails_is_named(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    candidate = BenchmarkCandidate(
        *("theirs", "tiny", "onnxruntime", "fp32", "onnxruntime", broken, 1, broken), baseline=True
    )
    with pytest.raises(EdgeError, match=r"theirs: cannot be measured in onnxruntime: .*leave it"):
        Worker(candidate, 1)


@pytest.mark.soak
def test_all_baselines_can_be_made(tiny_model, tmp_path, monkeypatch):
    """torch.compile and NNCF take a minute."""
    monkeypatch.chdir(tmp_path)
    result = measure_latency(
        [tiny_model / "fp32.onnx"],
        plan=LatencyPlan((1,), (1,), 0.05, 2, 1),
        checkpoint=tiny_model / "checkpoint.safetensors",
    )
    expected = [name for name in baselines.NAMES if name != "OpenVINO BF16"]
    assert set(expected) <= {row.name for row in result.rows}
    assert not [note for note in result.notes if "cannot be measured" in note]
