"""The one exception for what the user can mend, and the exit statuses of every command."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_ERROR = 1  # the user can mend it; also: one of many inputs failed
EXIT_USAGE = 2  # argparse's own
EXIT_DRIFT = 3  # parity or drift over its budget
EXIT_SLOWER = 4  # slower than the stored baseline
EXIT_MISSING = 5  # a backend or capability is not here
EXIT_PRECISION = 6  # the precision demanded is not what runs
EXIT_INTERRUPTED = 130  # the shell's number for Ctrl-C

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class EdgeError(Exception):
    """Something the user can mend: the message says what, what was expected and the mend."""

    def __init__(self, message: str, status: int = EXIT_ERROR) -> None:
        super().__init__(message)
        self.status = status


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
        sys.exit(_complain(line, EXIT_MISSING))


def run_command(main: Callable[[], int]) -> int:
    """Run a command and return its exit status; what the user can mend becomes one line on stderr.

    Anything else is a bug and keeps its traceback.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    try:
        return main()
    except EdgeError as error:
        return _complain(str(error), error.status)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader has left (`... | head`); Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return _complain("the disk is full; make room and run it again", EXIT_ERROR)


def _complain(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return status
