"""The speed table: contenders take turns in processes of their own, and a busy machine is said."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import latency
from benchmarks.harness import baselines, entries, machine, race, roofline
from benchmarks.harness.race import Contender, Timing, Worker
from benchmarks.studies import sizes
from export import exporter
from runtime.errors import EXIT_ERROR, EXIT_USAGE, EdgeError
from runtime.manifest import read_manifest
from tiny_networks import BATCHED, traced

ROOT = Path(__file__).parent.parent
QUICK = ["--seconds", "0.05", "--turns", "2", "--threads", "1", "--batch", "1", "2"]
QUICK += ["--cold-starts", "1"]
PEERS = ("torch eager", "ONNX Runtime FP32", "ONNX Runtime static INT8")


@pytest.fixture(scope="module")
def measured(tiny_model, tmp_path_factory):
    """What the command writes for a tiny model's artifacts and some of their peers."""
    out = tmp_path_factory.mktemp("measured") / "latency.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out.parent)
        patch.setattr(exporter, "trace", lambda network: traced(BATCHED))  # traced once a run
        status = latency.main(
            [
                *("--artifact", *(str(tiny_model / f"{name}.onnx") for name in ("fp32", "int8"))),
                *("--checkpoint", str(tiny_model / "checkpoint.safetensors")),
                *("--peers", *PEERS, *QUICK, "--out", str(out), "--json"),
            ]
        )
    assert status == 0
    return out


@pytest.fixture
def rows(measured):
    return json.loads(measured.read_text())["rows"]


def test_ours_run_in_each_backend_beside_the_peers_on_the_same_network(rows):
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
    assert min(fp32) > 80  # the peers compute the very same network


def test_a_row_says_what_it_took(rows):
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["runs"] >= 2
        assert len(row["turns_ms"]) == 2
        assert row["faces_per_s"] > 0
        assert row["bytes"] > 1000
        assert row["peak_mib"] > 20
        assert row["cold_start_ms"] > 50
        assert 0 < row["share_of_limit"] < 1
        assert 0 <= row["others_share"] <= 1
    onnx, torch = (
        next(row for row in rows if row["name"] == name)
        for name in ("tiny/fp32.onnx", "torch eager")
    )
    assert onnx["peak_mib"] < torch["peak_mib"]
    assert onnx["cold_start_ms"] < torch["cold_start_ms"]


def test_ratios_are_to_the_peers_of_the_same_batch(rows):
    for row in rows:
        if row["name"] == "torch eager":
            assert row["ratio_to_eager"] == 1
        if row["name"] == row["best_peer"]:
            assert row["ratio_to_best_peer"] == 1
    assert len({(row["batch"], row["best_peer"]) for row in rows}) == 2


def test_ratios_are_taken_turn_by_turn():
    """While the machine is half as fast for a turn, a median of times would compare it alone."""

    def row(name, turns_ms, peer):
        return latency.Row(
            *(name, "m", "b", "fp32", peer, None, 1, 1, 3, sorted(turns_ms)[1], 0, 0, 0),
            *(None, None, None, None, 0, 0, 0, 0, 0, tuple(turns_ms)),
        )

    compared = latency.compare([row("x", (1, 2, 2), False), row("torch eager", (3, 6, 6), True)])
    assert [row.ratio_to_eager for row in compared] == [3, 1]
    assert [row.best_peer for row in compared] == ["torch eager"] * 2


def test_json_says_on_what_machine(measured):
    content = json.loads(measured.read_text())
    about = content["machine"]
    assert about["level"] in about["processor"]
    assert about["cores"] >= 1
    assert {"torch", "onnxruntime", "openvino"} <= about["versions"].keys()
    assert len(about["load_average"]) == 3
    assert {limit["precision"] for limit in content["limits"]} >= {"fp32", "int8"}
    assert all(limit["gmacs_per_s"] > 1 for limit in content["limits"])


def test_markdown_has_a_table_for_each_batch(measured):
    page = measured.with_suffix(".md").read_text()
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert titles == ["## tiny, batch 1, 1 thread", "## tiny, batch 2, 1 thread"]
    assert page.count("| tiny/int8.onnx |") == 4


def test_contenders_take_turns():
    asked = []

    def contender(name):
        def time(batch, seconds):
            asked.append((name, batch, seconds))
            return {"times_ms": [1.0, 3.0], "cpu_s": 0.1, "peak_mib": 5.0}

        return SimpleNamespace(time=time)

    timings = race.race([contender("a"), contender("b")], 8, 6.0, turns=3)
    assert asked == [(name, 8, 2.0) for name in "abababababab"[:6]]
    assert [timing.turns_ms for timing in timings] == [(2.0, 2.0, 2.0)] * 2
    assert timings[0].p50_ms == 2.0
    assert len(timings[0].times_ms) == 6


def test_what_others_compute_is_seen(tmp_path, monkeypatch):
    """Two cores for a second: 1.5 s of it were taken, 0.5 s by us."""
    stat, now = tmp_path / "stat", iter([0.0, 0.0, 1.0])
    monkeypatch.setattr(machine, "STAT", stat)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(now))
    stat.write_text("cpu  100 0 50 9999 0 0 0 10 0 0\n")
    seen = machine.Bystanders()
    seen.start()
    stat.write_text("cpu  200 0 70 9999 0 0 0 40 0 0\n")
    seen.stop(ours_s=0.5)
    assert seen.share == pytest.approx(0.5)


def test_a_busy_machine_is_noticed_and_said(monkeypatch):
    busy = Timing((1.0,), (1.0,), 1.0, 1.0, others_share=0.4)
    row = latency.Row(
        *("a", "m", "b", "fp32", False, None, 1, 1, 1, 1.0, 1.0, 1.0, 1.0),
        *(None, None, None, None, 1.0, 1.0, 1, 99.0, busy.others_share, busy.turns_ms),
    )
    monkeypatch.setattr(latency, "find_entries", lambda *_: [])
    monkeypatch.setattr(latency, "measure_limits", lambda *_: ())
    monkeypatch.setattr(latency, "measure", lambda *_: [row])
    said = []
    (note,) = latency.latency(plan=latency.Plan(threads=(1,)), say=said.append).notes
    assert note.startswith("the machine was busy: others took 40% of it")
    assert f"note: {note}" in said
    monkeypatch.setattr(latency, "measure", lambda *_: [replace(row, others_share=0.02)])
    assert latency.latency(plan=latency.Plan(threads=(1,))).notes == ()


def test_level_is_the_best_instruction_set():
    assert machine.level("AMD EPYC (avx2 avx512f avx512_bf16 avx512_vnni)") == "avx512_vnni"
    assert machine.level("Cortex (asimddp)") == "asimddp"


def test_limit_is_the_best_of_all_kernels(monkeypatch):
    rates = [("fp32", "slow", 10**9, None), ("fp32", "quick", 4 * 10**9, None)]
    monkeypatch.setattr(roofline, "_runs", lambda threads: iter(rates))
    monkeypatch.setattr(roofline, "shortest_seconds", lambda run, seconds: 0.5)
    (limit,) = roofline.measure_limits(2)
    assert (limit.gmacs_per_s, limit.reached_by, limit.threads) == (8.0, "quick", 2)


def test_kernels_count_their_multiply_adds():
    conv, product, *_ = roofline.KERNELS
    assert conv.macs == 512 * 512 * 9 * 32 * 32
    assert product.macs == 1024**3


def test_other_weights_than_the_artifact_is_made_of_are_refused(tiny_model, capsys):
    arguments = ["--artifact", str(tiny_model / "fp32.onnx"), *QUICK]
    committed = ROOT / "aminet" / "weights" / "aminet-edge.safetensors"
    if not committed.is_file():
        pytest.skip(f"{committed} is not there")
    assert latency.main([*arguments, "--checkpoint", str(committed)]) == EXIT_ERROR
    error = capsys.readouterr().err
    assert f"{committed}: is not what {tiny_model / 'fp32.onnx'} was made of" in error


def test_files_for_tensorrt_are_left_out_and_said(tiny_model):
    said = []
    arguments = ([tiny_model / "int8-trt.onnx"], latency.BACKENDS, (), None)
    found = entries.find_entries(
        *(*arguments[:3], tiny_model / "checkpoint.safetensors"), lambda line: None, said.append
    )
    assert found == []
    assert said == [f"{tiny_model / 'int8-trt.onnx'}: is for tensorrt, which is not measured here"]
    assert entries.is_for(read_manifest(tiny_model / "int8.onnx"), "openvino")


def test_what_is_not_installed_is_left_out_and_said(tiny_model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(entries.openvino, "is_installed", lambda: False)
    monkeypatch.setattr(exporter, "trace", lambda network: traced(BATCHED))
    monkeypatch.setitem(sys.modules, "nncf", None)
    said = []
    found = entries.find_entries(
        [tiny_model / "fp32.onnx"],
        entries.BACKENDS,
        ("NNCF INT8",),
        tiny_model / "checkpoint.safetensors",
        lambda line: None,
        said.append,
    )
    assert [entry.contender.backend for entry in found] == ["onnxruntime"]
    assert said[0].startswith("backend openvino: left out")
    assert said[1].startswith("NNCF INT8: nncf is not installed; pip install 'aminet-edge[bench]'")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--peers", "keras"], EXIT_USAGE, "no peer is called 'keras'"),
        (["--seconds", "0"], EXIT_USAGE, "expected over 0"),
        (["--artifact", "absent.onnx"], EXIT_ERROR, r"absent.onnx: is not there"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments, status, message, capsys):
    assert latency.main(arguments) == status
    assert message in capsys.readouterr().err


def test_a_worker_that_fails_is_named(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    contender = Contender("theirs", "tiny", "onnxruntime", "fp32", "onnxruntime", broken, peer=True)
    with pytest.raises(EdgeError, match=r"theirs: cannot be measured in onnxruntime: .*leave it"):
        Worker(contender, 1)


@pytest.mark.soak
def test_all_peers_can_be_made(tiny_model, tmp_path, monkeypatch):
    """torch.compile and NNCF take a minute."""
    monkeypatch.chdir(tmp_path)
    result = latency.latency(
        [tiny_model / "fp32.onnx"],
        plan=latency.Plan((1,), (1,), 0.05, 2, 1),
        checkpoint=tiny_model / "checkpoint.safetensors",
    )
    expected = [name for name in baselines.NAMES if name != "OpenVINO BF16"]
    assert set(expected) <= {row.name for row in result.rows}
    assert not [note for note in result.notes if "cannot be measured" in note]


@pytest.mark.soak
def test_sizes_are_timed_with_random_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", "aminet-edge", "--seconds", "0.1", "--out", "sizes.json"]
    status = sizes.main([*arguments, "--peers", "torch eager"])
    assert status == 0
    (row,) = json.loads((tmp_path / "sizes.json").read_text())["rows"]
    assert (row["model"], row["name"]) == ("aminet-edge", "torch eager")
    assert row["gmacs_per_s"] == pytest.approx(row["macs"] / row["p50_ms"] / 1e6)
