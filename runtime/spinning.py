"""How long threads of libgomp, PyTorch's and ncnn's, wait in a loop before they sleep.

libgomp reads it from the environment as it is loaded. Left to itself a thread loops 300,000 times:
where another process takes a core, a face that takes 7 ms in ncnn takes two seconds, and an export
with PyTorch three times as long. 5,000 cost one tenth at most where the cores are idle.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

TURNS = {"GOMP_SPINCOUNT": "5000"}
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # by the user, if one is set


def spin_little() -> None:
    """For all that this process loads and starts from now on; what the user chose stays."""
    if not any(name in os.environ for name in CHOSEN):
        os.environ.update(TURNS)


@contextmanager
def spinning_little() -> Iterator[None]:
    """For what is loaded within."""
    before = dict(os.environ)
    spin_little()
    try:
        yield
    finally:
        for name in TURNS.keys() - before.keys():
            os.environ.pop(name, None)


def as_usual(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without `spin_little`, for other tools as they are by themselves."""
    return {name: value for name, value in environment.items() if TURNS.get(name) != value}
