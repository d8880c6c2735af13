"""Progress is shown in place on a terminal, and rarely elsewhere."""

import io

import pytest

from runtime import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_the_step_in_place_and_is_cleared(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress.Steps() as steps:
        steps("tracing")
        steps("proving parity")
    assert terminal.getvalue() == "\r\033[Ktracing ...\r\033[Kproving parity ...\r\033[K"


@pytest.mark.parametrize(("every_s", "lines"), [(30.0, 0), (0.0, 2)])
def test_a_pipe_gets_a_line_now_and_then(monkeypatch, every_s, lines):
    monkeypatch.setattr(progress, "EVERY_S", every_s)
    monkeypatch.setattr("sys.stderr", pipe := io.StringIO())
    with progress.Steps() as steps:
        steps("tracing")
        steps("proving parity")
    assert pipe.getvalue().count("\n") == lines
    assert "\r" not in pipe.getvalue()
