"""What only many tries show: memory that grows, and a kill at the wrong moment.

AMINET_SOAK_SHARE=0.1 makes a tenth of the tries.
"""

import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

import tiny_artifact
from runtime.artifact import read_artifact
from runtime.drift import read_probes
from runtime.image import read_image, to_tensor, write_image
from runtime.manifest import manifest_path, read_manifest
from runtime.session import open_session
from test_shards import names, write_shard
from tiny_networks import BATCHED, write_checkpoint

pytestmark = pytest.mark.soak
ROOT = Path(__file__).parent.parent
SHARE = float(os.environ.get("AMINET_SOAK_SHARE", "1"))
FACES, KILLS, FOLDER = round(10_000 * SHARE), max(1, round(50 * SHARE)), 60
SHARDED, WORKERS, FILES = round(100_000 * SHARE), 4, 40
GROWTH_MIB = 16
STAGES = ("export.onnx", "quantize.fp16", "quantize.int8", "export.tensorrt", "runtime.infer")
WORK = ".work"  # where an engine is built, beside its place; the next build empties it


def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def test_memory_stays_flat(edge_artifact, capsys):
    lr = to_tensor(tiny_artifact.faces(8))
    with open_session(edge_artifact, "onnxruntime") as session:
        first = session.run(lr[:1])
        for number in range(FACES):
            session.run(lr[number % 8][None])
            if number == FACES // 10:
                before = resident_mib()
        grown = resident_mib() - before
        assert np.array_equal(session.run(lr[:1]), first)
    with capsys.disabled():
        sys.stderr.write(f"\n{FACES} faces: {before:.0f} MiB, grown by {grown:.1f}\n")
    assert grown < GROWTH_MIB


@pytest.fixture(scope="module")
def server():
    """Processes that have imported everything already, so that a kill meets the work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*STAGES, "runtime.session", "runtime.media.pipeline", __name__])
    return context


def run_stage(module, arguments):
    """In the child: a command, with its exit status."""
    import importlib

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os._exit(importlib.import_module(module).main(arguments))


def finish(server, module, arguments):
    """Run it to its end; the seconds that it took."""
    started = time.perf_counter()
    child = server.Process(target=run_stage, args=(module, arguments))
    child.start()
    child.join()
    assert child.exitcode == 0
    return time.perf_counter() - started


def kill(server, module, arguments, after_s):
    child = server.Process(target=run_stage, args=(module, arguments))
    child.start()
    child.join(after_s)
    child.kill()
    child.join()


def assert_whole(folder):
    """Every file that has its name is what it says."""
    readers = {
        ".onnx": lambda path: onnx.checker.check_model(onnx.load(path)),
        ".json": lambda path: read_manifest(path.with_suffix("")),
        ".npz": read_probes,
        ".png": read_image,
        ".engine": lambda path: read_artifact(path) if manifest_path(path).exists() else None,
    }
    for path in folder.rglob("[!.]*"):
        if path.is_file() and WORK not in path.parts:
            readers[path.suffix](path)


def kill_often(server, module, arguments, folder, forget):
    """Kill it at random moments of its run; what is left is whole, and the next run finishes."""
    generator = random.Random(module)
    seconds = finish(server, module, arguments)
    for _ in range(KILLS):
        forget()
        kill(server, module, arguments, generator.uniform(0, seconds))
        assert_whole(folder)
        finish(server, module, arguments)
        assert_whole(folder)
        assert [path for path in folder.rglob(".*") if path.is_file()] == []


@pytest.fixture
def fp32(server, tmp_path):
    """A tiny fp32.onnx in a folder of its own, and the arguments that make it."""
    write_checkpoint(tmp_path / "tiny.safetensors", BATCHED)
    out = tmp_path / "made" / "fp32.onnx"
    arguments = ["--checkpoint", str(tmp_path / "tiny.safetensors"), "--out", str(out)]
    return out, arguments


def test_a_killed_export_leaves_no_half_file(server, fp32):
    out, arguments = fp32

    def forget():
        for path in out.parent.iterdir():
            path.unlink()

    kill_often(server, "export.onnx", arguments, out.parent, forget)


@pytest.mark.parametrize("stage", ["quantize.fp16", "quantize.int8"])
def test_a_killed_quantization_leaves_no_half_file(server, fp32, tmp_path, stage):
    out, arguments = fp32
    finish(server, "export.onnx", arguments)
    kept = {path.name for path in out.parent.iterdir()}
    calibration = tmp_path / "calib"
    for number, face in enumerate(tiny_artifact.faces(24, seed=9)):
        write_image(calibration / f"{number}.png", face)
    arguments = ["--artifact", str(out)]
    if stage == "quantize.int8":
        arguments += ["--calib", str(calibration), "--target", "cpu", "--max-drop-db", "5"]

    def forget():
        for path in out.parent.iterdir():
            if path.is_file() and path.name not in kept:
                path.unlink()

    kill_often(server, stage, arguments, out.parent, forget)


def test_a_killed_engine_build_leaves_no_half_engine(server, fp32):
    """A build has the same bytes each time, so what is there must be what an undisturbed one has.

    The builder is a process of its own, which a kill of the command leaves behind for a while.
    """
    pytest.importorskip("tensorrt_rtx")
    out, arguments = fp32
    finish(server, "export.onnx", arguments)
    arguments = ["--artifact", str(out), "--builder", "tensorrt-rtx"]
    finish(server, "export.tensorrt", arguments)
    (engine,) = out.parent.glob("trt/*/*.engine")
    whole = engine.read_bytes()

    def forget():
        assert not engine.exists() or engine.read_bytes() == whole
        for path in engine.parent.iterdir():
            if path.is_file():
                path.unlink()

    kill_often(server, "export.tensorrt", arguments, engine.parent, forget)
    forget()


def test_a_killed_folder_run_leaves_no_half_face(server, artifact, tmp_path):
    faces, out = tmp_path / "faces", tmp_path / "out"
    for number, face in enumerate(tiny_artifact.faces(FOLDER)):
        write_image(faces / f"{number}.png", face)
    arguments = [str(faces), "--artifact", str(artifact), "--out", str(out)]
    arguments += ["--backend", "onnxruntime"]

    def forget():
        for path in out.glob("[!.]*"):
            path.unlink()

    kill_often(server, "runtime.infer", arguments, out, forget)
    assert len(list(out.iterdir())) == FOLDER


def peak_mib(process):
    """The most memory that a process had so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) / 1024


def test_of_four_workers_one_is_killed_and_no_face_is_lost_or_made_twice(
    edge_int8, tmp_path, capsys
):
    """Tars and parquet files by turns, each worker its shard; the killed one is started again."""
    each = max(2, SHARDED // FILES)
    suffixes = (".tar", ".parquet")
    for number in range(FILES):
        (tmp_path / "faces").mkdir(exist_ok=True)
        write_shard(tmp_path / "faces" / f"{number:02}{suffixes[number // 2 % 2]}", each)

    def start(worker):
        command = [sys.executable, "-m", "runtime.infer", tmp_path / "faces", "--json-lines"]
        command += ["--artifact", edge_int8, "--backend", "onnxruntime", "--workers", "1"]
        command += ["--out", tmp_path / "sr", "--shard", f"{worker + 1}/{WORKERS}"]
        with (tmp_path / f"{worker}.jsonl").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)

    def lines(worker):
        return (tmp_path / f"{worker}.jsonl").read_bytes().count(b"\n")

    share, started = each * FILES // WORKERS, time.perf_counter()
    workers = [start(worker) for worker in range(WORKERS)]
    victim, watched, early = workers[0], workers[1], None
    while watched.poll() is None:
        if victim.poll() is None and lines(0) > 0.35 * share:
            victim.kill()
        if early is None and lines(1) > 0.2 * share:
            early = peak_mib(watched)
        if lines(1) < 0.95 * share:
            late = peak_mib(watched)
        time.sleep(0.05)
    assert [worker.wait() for worker in workers] == [-9, 0, 0, 0]
    assert start(0).wait() == 0
    taken = time.perf_counter() - started
    made = sorted((tmp_path / "sr").iterdir())
    assert [path.name[:2] for path in made] == [f"{number:02}" for number in range(FILES)]
    assert all(len(names(path)) == len(set(names(path))) == each for path in made)
    with capsys.disabled():
        rate = each * FILES / taken
        sys.stderr.write(
            f"\n{each * FILES} faces, {rate:.0f}/s; a worker {early:.0f} MiB, later {late:.0f}\n"
        )
    assert late - early < GROWTH_MIB
