"""What a command's start can do without, while it imports the libraries that it needs.

On a start for one face this is a fifth of the time: NumPy's BLAS starts a thread for each core, and
ends them, and the garbage collector looks again and again at modules that stay.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BLAS_THREADS = "OPENBLAS_NUM_THREADS"  # read when NumPy is imported


@contextmanager
def importing() -> Iterator[None]:
    """Import for a whole run: one thread for NumPy's BLAS, no garbage collection.

    The user's own setting counts. Once NumPy is imported there is nothing to be done.
    """
    if "numpy" in sys.modules or not gc.isenabled():
        yield
        return
    given = BLAS_THREADS in os.environ
    os.environ.setdefault(BLAS_THREADS, "1")
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        if not given:  # children decide for themselves
            del os.environ[BLAS_THREADS]
