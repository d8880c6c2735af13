"""The one exception for what the user can fix, and the exit statuses of every command."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

from runtime.spinning import spin_little

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXIT_ERROR = 1  # the user can fix it; also: one of many inputs failed
EXIT_USAGE = 2  # argparse's own
EXIT_DRIFT = 3  # parity or drift over its budget
EXIT_SLOWER = 4  # slower than the stored baseline
EXIT_MISSING = 5  # a backend or capability is not here
EXIT_PRECISION = 6  # the precision demanded is not what runs
EXIT_INTERRUPTED = 130  # the shell's number for Ctrl-C

JSON_FLAG = "--json"
SCRIPT = "aminet-edge"  # the console script, which names itself in usage lines
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class EdgeError(Exception):
    """Something the user can fix: the message says what, what was expected, and the fix."""

    def __init__(self, message: str, status: int = EXIT_ERROR) -> None:
        super().__init__(message)
        self.status = status


class FullDiskError(EdgeError):
    """No room is left: a run over many inputs ends, since nothing more can be written."""


@contextmanager
def needs(extra: str, module: str = "") -> Iterator[None]:
    """Wrap the imports that only an extra brings; without it raise EdgeError with status 5.

    Commands import inside the function that needs the library, so that --help and usage errors work
    without it. At the top of a file that is a command, pass `__name__`: run as a command it ends
    with one line and status 5, imported as a library it raises the ImportError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        line = f"{error.name} is not installed; pip install 'aminet-edge[{extra}]'"
        if not module:
            raise EdgeError(line, EXIT_MISSING) from error
        if module != "__main__":
            raise
        sys.exit(_complain(line, EXIT_MISSING, as_json=JSON_FLAG in sys.argv[1:]))


def run_command(
    parser: ArgumentParser, run: Callable[[Namespace], int], argv: Sequence[str] | None
) -> int:
    """Parse a command's arguments, run it and return its exit status.

    What the user can fix becomes one line on stderr and, with --json, one object on stdout:
    {"error": ..., "status": ...}. Anything else is a bug and keeps its traceback. Raises SystemExit
    as argparse does: after --help, and with status 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # of any encoding: what it lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    spin_little()
    if sys.argv[0].startswith(f"{SCRIPT} "):
        parser.prog = sys.argv[0]
    as_json = JSON_FLAG in (sys.argv[1:] if argv is None else argv)
    try:
        return run(_parse(parser, argv, as_json=as_json))
    except EdgeError as error:
        return _complain(str(error), error.status, as_json=as_json)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED, as_json=as_json)
    except BrokenPipeError:
        # The reader has left (`... | head`); Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return _complain(
            "the disk is full; make room and run it again", EXIT_ERROR, as_json=as_json
        )


def _parse(parser: ArgumentParser, argv: Sequence[str] | None, *, as_json: bool) -> Namespace:
    """The arguments; a usage error is an object on stdout too if it is asked for."""
    complain = parser.error

    def error(message: str) -> NoReturn:
        if as_json:
            _print_error(message, EXIT_USAGE)
        complain(message)

    parser.error = error  # type: ignore[method-assign]
    return parser.parse_args(argv)


def _complain(message: str, status: int, *, as_json: bool) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    if as_json:
        _print_error(message, status)
    return status


def _print_error(message: str, status: int) -> None:
    import json

    print(json.dumps({"error": message, "status": status}))  # noqa: T201
