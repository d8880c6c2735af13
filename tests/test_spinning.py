"""Threads that wait leave the cores to others: libgomp itself says what it read."""

import os
import re
import subprocess
import sys

import pytest

from runtime.spinning import CHOSEN, TURNS, as_usual

NCNN = "from runtime.backends import ncnn; ncnn._import_ncnn()"
COMMAND = (
    "import argparse; from runtime.errors import run_command;"
    " run_command(argparse.ArgumentParser(), lambda _: __import__('torch') and 0, [])"
)
LITTLE = TURNS["GOMP_SPINCOUNT"]


def libgomp_as_loaded(code, chosen):
    """The turns that libgomp read, and what processes that are started later will read."""
    usual = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}; import os; print(os.environ.get('GOMP_SPINCOUNT'))"],
        env={**usual, "OMP_DISPLAY_ENV": "verbose", **chosen},
        capture_output=True,
        text=True,
        check=True,
    )
    read = re.search(r"GOMP_SPINCOUNT = '(\w+)'", ran.stderr)
    return read and read[1], ran.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="wheels have libgomp on Linux alone")
@pytest.mark.parametrize(
    ("code", "chosen", "read", "later"),
    [
        (NCNN, {}, LITTLE, "None"),
        (NCNN, {"GOMP_SPINCOUNT": "70"}, "70", "70"),
        (NCNN, {"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000", "None"),
        (COMMAND, {}, LITTLE, LITTLE),
        (COMMAND, {"GOMP_SPINCOUNT": "70"}, "70", "70"),
    ],
)
def test_threads_of_libgomp_spin_little_unless_told_otherwise(code, chosen, read, later):
    """Left to themselves: 2.3 s a face of ncnn beside another busy process, 7 ms on idle cores."""
    assert libgomp_as_loaded(code, chosen) == (read, later)


def test_other_tools_are_measured_as_they_are():
    assert as_usual({**TURNS, "HOME": "/home/me"}) == {"HOME": "/home/me"}
    assert as_usual({"GOMP_SPINCOUNT": "70"}) == {"GOMP_SPINCOUNT": "70"}
