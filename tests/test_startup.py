"""A start imports what it needs without NumPy's threads, and leaves the process as it was."""

import os
import subprocess
import sys

import pytest

from runtime import startup

SCRIPT = """
import gc, os
from runtime.startup import BLAS_THREADS, importing
before = os.environ.get(BLAS_THREADS)
with importing():
    seen = os.environ[BLAS_THREADS]
    import numpy
assert os.environ.get(BLAS_THREADS) == before and gc.isenabled()
print(seen, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize(("asked", "said"), [(None, "1 1"), ("1", "1 1"), ("2", "2")])
def test_numpy_starts_no_threads_unless_the_user_asks(asked, said):
    environment = {k: v for k, v in os.environ.items() if k != startup.BLAS_THREADS}
    environment |= {startup.BLAS_THREADS: asked} if asked else {}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert not ended.stderr
    assert ended.stdout.startswith(said)


def test_with_numpy_imported_nothing_changes(monkeypatch):
    monkeypatch.delenv(startup.BLAS_THREADS, raising=False)
    with startup.importing():
        assert startup.BLAS_THREADS not in os.environ
