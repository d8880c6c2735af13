"""Shards at scale: two runs on one, a kill, a full disk, and a million entries."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest

import tiny_artifact
from runtime import infer
from runtime.dataset import iter_tar
from runtime.image import encode_image, write_image
from runtime.media.archives import writing_archive
from runtime.media.jobs import Job
from runtime.media.names import result_name
from runtime.media.origin import origin_of
from runtime.media.plan import Plan

ROOT = Path(__file__).parent.parent
FACES = [b"".join(encode_image(face, ".png")) for face in tiny_artifact.faces(40)]
INFER = (sys.executable, "-m", "runtime.infer")


def run(*arguments):
    return infer.main([str(argument) for argument in arguments])


def write_shard(path, count, damaged=None):
    """A tar or a parquet file of some faces, over and over."""
    faces = {f"{number:06}.png": FACES[number % len(FACES)] for number in range(count)}
    if damaged is not None:
        faces[f"{damaged:06}.png"] = b"damaged"
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for name, face in faces.items():
                member = tarfile.TarInfo(name)
                member.size = len(face)
                archive.addfile(member, io.BytesIO(face))
    else:
        pa = pytest.importorskip("pyarrow", reason="the extra scale is not installed")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"name": list(faces), "image": list(faces.values())}), path)
    return path


def names(path):
    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            return archive.getnames()
    return pytest.importorskip("pyarrow.parquet").read_table(path)["name"].to_pylist()


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_of_two_runs_on_one_shard_the_second_is_refused_in_one_line(
    tmp_path, artifact, capsys, suffix
):
    mine, other = (write_shard(tmp_path / f"{name}{suffix}", 3) for name in "ab")
    made = tmp_path / f"a_sr{suffix}"
    with writing_archive(made, origin_of(mine)):  # the first run
        assert run(mine, other, "--artifact", artifact) == 1
        line = f"error: {made}: is being written by another run; let it end, or give another --out"
        assert line in capsys.readouterr().err
    assert len(names(tmp_path / f"b_sr{suffix}")) == 3  # the other shards are done
    assert run(mine, other, "--artifact", artifact) == 0
    assert len(names(made)) == 3


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_a_shard_that_another_run_has_just_done_is_not_made_again(
    tmp_path, artifact, monkeypatch, suffix
):
    source = write_shard(tmp_path / f"a{suffix}", 3)
    assert run(source, "--artifact", artifact) == 0
    made = tmp_path / f"a_sr{suffix}"
    first = made.stat().st_mtime_ns
    ask, asked = Job.is_done, []

    def is_done(job, since):  # not yet before it is locked
        asked.append(job.name)
        return len(asked) > 1 and ask(job, since)

    monkeypatch.setattr(Job, "is_done", is_done)
    assert run(source, "--artifact", artifact) == 0
    assert made.stat().st_mtime_ns == first


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_after_a_kill_the_next_run_loses_nothing_and_makes_nothing_twice(
    tmp_path, artifact, suffix
):
    shards = [write_shard(tmp_path / f"{name}{suffix}", 60) for name in "abc"]
    out = tmp_path / "sr"
    command = [*INFER, *shards, "--artifact", artifact, "--out", out, "--json-lines"]
    first, second = out / f"a_sr{suffix}", out / f"b_sr{suffix}"
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:  # until it is in the middle of the second shard
        if f"b{suffix}/000010.png" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = first.stat().st_mtime_ns
    assert not second.exists()
    assert len(list(out.glob(".*.part*"))) == 1
    assert run(*command[3:-1]) == 0
    assert first.stat().st_mtime_ns == done
    assert sorted(path.name for path in out.iterdir()) == [f"{name}_sr{suffix}" for name in "abc"]
    for path in out.iterdir():
        assert len(names(path)) == len(set(names(path))) == 60


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_nothing_half_written(tmp_path, artifact):
    unshare = shutil.which("unshare")
    place = tmp_path / "small"
    place.mkdir()
    mount = f"mount -t tmpfs -o size=256k none {place}"
    able = unshare and subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True)
    if not able or able.returncode:
        pytest.skip("no file system can be mounted here (unshare, mount)")
    for number, face in enumerate(tiny_artifact.faces(40)):
        write_image(tmp_path / "faces" / f"{number}.png", face)
    sources = [tmp_path / "faces", write_shard(tmp_path / "a.tar", 40)]
    sources.append(write_shard(tmp_path / "a.parquet", 40))
    infer_all = "; ".join(
        f"{' '.join(INFER)} {source} --artifact {artifact} --out {place}/{number}; echo $?;"
        f" find {place} -name '.*.part*'; rm -r {place}/*"
        for number, source in enumerate(sources)
    )
    script = f"{mount} && {{ {infer_all}; }}"
    ended = subprocess.run(
        [unshare, "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error")]
    assert [line.partition(": the disk")[2] for line in errors] == [
        " is full; make room and run it again"
    ] * 3, ended.stderr
    assert [line for line in ended.stdout.splitlines() if " -> " not in line and line != "..."] == [
        "1"
    ] * 3


def peak_kib(use):
    """The lesser of two: Python's table of interned strings may grow in one of them."""
    peaks = []
    for _ in range(2):
        tracemalloc.start()
        use()
        peaks.append(tracemalloc.get_traced_memory()[1] / 1024)
        tracemalloc.stop()
    return min(peaks)


def drain(iterator):
    for _ in iterator:
        pass


def test_a_plan_holds_no_more_for_a_large_tar_than_for_a_small_one(tmp_path):
    tars = [write_shard(tmp_path / f"{count}.tar", count) for count in (200, 4000)]
    peaks = [peak_kib(lambda tar=tar: drain(iter_tar(tar))) for tar in tars]
    assert peaks[1] < 1.2 * peaks[0] + 20


def test_a_plan_holds_the_names_of_a_folder_and_no_more(tmp_path):
    """What os.walk lists takes about 0.2 KiB a file; a job with its paths takes 1 KiB."""
    for count in (200, 4000):
        (tmp_path / str(count)).mkdir()
        for number in range(count):
            os.close(os.open(tmp_path / str(count) / f"{number:06}.png", os.O_CREAT))
    small, large = (
        peak_kib(lambda folder=tmp_path / str(count): drain(Plan([str(folder)]).jobs()))
        for count in (200, 4000)
    )
    assert (large - small) / 3800 < 0.25


def test_two_sources_of_one_result_are_found_whatever_stands_between_them(tmp_path):
    for name in ("a-b.png", "a.b.png", "a.jpg", "a.png", "b.png"):
        (tmp_path / name).touch()
    jobs = {Path(job.name).name: job.error for job in Plan([str(tmp_path)]).jobs()}
    assert [name for name, error in jobs.items() if error] == ["a.png"]
    assert "a_sr.png" in jobs["a.png"]


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("a/x.jpg", "a/x_sr.png"),
        ("x.y.TIFF", "x.y_sr.png"),
        ("x.mkv", "x_sr.mp4"),
        ("x.TAR", "x_sr.tar"),
        ("x.parquet", "x_sr.parquet"),
        ("000017", "000017_sr.png"),
    ],
)
def test_what_results_are_called(name, result):
    assert result_name(name) == result
