"""The arguments that the commands of quantize share; imports no library."""

from argparse import ArgumentParser

from quantize.options import ARTIFACT, CALIBRATION
from runtime.errors import EXIT_USAGE, EdgeError

MAX_DROP_DB = 10


def add_inputs(parser: ArgumentParser, model: str = "the FP32 model") -> None:
    """Add --artifact, which is `model`, and --calib."""
    parser.add_argument(
        "--artifact", default=ARTIFACT, metavar="F", help=f"{model} (default: {ARTIFACT})"
    )
    parser.add_argument(
        "--calib",
        nargs="+",
        default=[CALIBRATION],
        metavar="P",
        help=f"folders, tars or patterns of face images (default: {CALIBRATION})",
    )


def add_budget(parser: ArgumentParser, default: str) -> None:
    """Add --max-drop-db, whose `default` is described, and --data."""
    parser.add_argument(
        "--max-drop-db",
        type=float,
        metavar="X",
        help=f"PSNR-Y that may be lost, a face five times that (default: {default})",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="real faces of 128x128: the drift is measured on them (default: expected)",
    )


def check_drop(max_drop_db: float | None) -> None:
    """Raise EdgeError (status 2) for a --max-drop-db that is no budget."""
    if max_drop_db is not None and not 0 < max_drop_db <= MAX_DROP_DB:
        raise EdgeError(f"--max-drop-db: expected a number over 0, up to {MAX_DROP_DB}", EXIT_USAGE)
