"""A file is whole or not there, whatever happens while it is written."""

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import atomic
from runtime.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, EdgeError, run_command

ROOT = Path(__file__).parent.parent


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "face.png"
    path.write_bytes(b"old")
    return path


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_writing_replaces_and_leaves_nothing_else(old):
    atomic.write_bytes(old, b"new")
    assert old.read_bytes() == b"new"
    assert list(old.parent.iterdir()) == [old]


def test_folders_are_made(tmp_path):
    atomic.write_bytes(tmp_path / "a" / "b" / "c.bin", b"new")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"new"


def test_temporary_file_keeps_the_suffix_and_is_hidden(old):
    with atomic.writing(old) as temporary:
        assert temporary.parent == old.parent
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"new")


def write_half(path, failure):
    with atomic.writing(path) as temporary:
        temporary.write_bytes(b"half")
        raise failure


@pytest.mark.parametrize("failure", [ValueError("a bug"), KeyboardInterrupt()], ids=repr)
def test_old_file_survives_a_failure(old, failure):
    with pytest.raises(type(failure)):
        write_half(old, failure)
    assert old.read_bytes() == b"old"
    assert list(old.parent.iterdir()) == [old]


def test_full_disk_is_one_line_and_the_old_file_survives(old, monkeypatch):
    monkeypatch.setattr(atomic.os, "fsync", full_disk)
    with pytest.raises(EdgeError, match=r"face\.png: the disk is full; make room") as caught:
        atomic.write_bytes(old, b"new")
    assert caught.value.status == EXIT_ERROR
    assert old.read_bytes() == b"old"
    assert list(old.parent.iterdir()) == [old]


def test_kill_in_the_middle_of_a_write_leaves_the_old_file(old):
    program = (
        "import os, signal, sys; from runtime.atomic import writing\n"
        "with writing(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, old], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert old.read_bytes() == b"old"
    assert len(list(old.parent.iterdir())) == 2
    atomic.write_bytes(old.with_name("other.png"), b"new")  # removes what the killed one left
    assert sorted(old.parent.iterdir()) == [old, old.with_name("other.png")]


def test_what_another_process_is_writing_is_no_leftover(old):
    program = (
        "import sys; from runtime.atomic import write_bytes; write_bytes(sys.argv[1], b'theirs')"
    )
    theirs = old.with_name("theirs.png")
    with atomic.writing(old) as temporary:
        temporary.write_bytes(b"ours")
        subprocess.run([sys.executable, "-c", program, theirs], cwd=ROOT, check=True)
        assert temporary.read_bytes() == b"ours"
    assert (old.read_bytes(), theirs.read_bytes()) == (b"ours", b"theirs")


def test_hidden_files_of_others_are_left(old):
    others = [old.with_name(name) for name in (".face.png", ".face.part.png", ".a.12345678.part")]
    for other in others[:2]:
        other.touch()
    others[2].mkdir()
    atomic.write_bytes(old, b"new")
    assert sorted(old.parent.iterdir()) == sorted([old, *others])


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("a_file/x.png", "cannot be written"),
        ("a_folder", "is a folder"),
        ("/dev/null", "is not an ordinary file"),
        ("n" * 300, "cannot be written"),
    ],
)
def test_places_that_cannot_be_written_are_named(tmp_path, target, problem):
    (tmp_path / "a_file").touch()
    (tmp_path / "a_folder").mkdir()
    with pytest.raises(EdgeError, match=problem):
        atomic.write_bytes(tmp_path / target, b"new")


def test_reading_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").write_bytes(b"123")
    for name, problem in [
        ("nothing", "not found"),
        (".", "is a folder"),
        ("pipe", "is not an ordinary file"),
        ("big", "has 3 bytes, expected at most 2"),
        ("a\0b", "cannot be read"),
    ]:
        with pytest.raises(EdgeError, match=problem):
            atomic.read_bytes(tmp_path / name, limit_bytes=2)


def test_digests(old):
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert atomic.sha256_bytes(b"") == empty
    assert atomic.sha256_file(old) == atomic.sha256_bytes(b"old")
    with pytest.raises(EdgeError, match="nothing: cannot be read"):
        atomic.sha256_file(old.parent / "nothing")


def run(error, *arguments):
    """Run a command that raises an error."""

    def fail(_):
        raise error

    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    return run_command(parser, fail, arguments)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (EdgeError("x: is empty", 5), 5, "error: x: is empty\n"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "error: interrupted\n"),
        (
            OSError(errno.ENOSPC, "no space"),
            1,
            "error: the disk is full; make room and run it again\n",
        ),
    ],
    ids=repr,
)
def test_commands_end_with_a_status_and_a_line(error, status, line, capsys):
    assert run(error) == status
    assert capsys.readouterr() == ("", line)
    assert run(error, "--json") == status
    said = capsys.readouterr()
    assert said.err == line
    assert json.loads(said.out) == {"error": line.strip().removeprefix("error: "), "status": status}


def test_a_usage_error_is_a_json_object_too(capsys):
    with pytest.raises(SystemExit):
        run(None, "--json", "--unknown")
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"error": "unrecognized arguments: --unknown", "status": EXIT_USAGE}


def test_what_an_encoding_lacks_is_escaped():
    """After hours of training a Latin terminal is no reason to end with a traceback."""
    program = (
        "import argparse, sys; from runtime.errors import run_command\n"
        "def run(_): print('r\u00e9sum\u00e9 \u2192'); return 0\n"
        "sys.exit(run_command(argparse.ArgumentParser(), run, []))\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    assert ended.stdout == b"r\\xe9sum\\xe9 \\u2192\n"


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())


def test_a_reader_that_leaves_is_no_error_to_talk_about():
    program = (
        "import argparse, sys; from runtime.errors import run_command\n"
        "def run(_):\n"
        "    while True: print('line')\n"
        "sys.exit(run_command(argparse.ArgumentParser(), run, []))\n"
    )
    command = f'"{sys.executable}" -c "$PROGRAM" | head -n 1'
    ended = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PROGRAM": program},
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert (ended.stdout, ended.stderr) == (b"line\n", b"")


def test_a_folder_is_replaced_as_a_whole_or_stays(tmp_path):
    target = tmp_path / "made"
    for content in ("first", "second"):
        with atomic.writing_folder(target) as temporary:
            (temporary / content).write_text(content)
    assert [path.name for path in target.iterdir()] == ["second"]

    def fail():
        with atomic.writing_folder(target) as temporary:
            (temporary / "third").write_text("third")
            raise ValueError("half done")

    with pytest.raises(ValueError, match="half done"):
        fail()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_never_takes_the_place_of_a_file(tmp_path):
    (tmp_path / "made").write_text("a file")
    with (
        pytest.raises(EdgeError, match="is a file, expected the name of a folder"),
        atomic.writing_folder(tmp_path / "made"),
    ):
        pass
    assert (tmp_path / "made").read_text() == "a file"


def test_what_a_killed_process_left_of_a_folder_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_CLEARED", set())
    left = tmp_path / ".made.0123abcd.part-folder"
    left.mkdir()
    (left / "half").write_text("half")
    with atomic.writing_folder(tmp_path / "made"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
