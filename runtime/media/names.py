"""What a file is taken for by its name, and what its result is called."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from runtime.dataset import is_image_name, is_parquet_name, is_tar_name

RESULT = "_sr"  # what a result's name ends in before its suffix
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi"),
    *(".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv"),
)


def is_video_name(name: str | Path) -> bool:
    """Whether a file is taken for a video: its suffix says so, and it is not hidden."""
    path = name if isinstance(name, Path) else Path(name)
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def is_archive_name(path: Path) -> bool:
    """Whether a path is taken for a file of many images: a tar or a parquet file."""
    return is_tar_name(path) or is_parquet_name(path)


def is_input_name(path: Path) -> bool:
    """Whether a file in a folder is upscaled."""
    return is_image_name(path.name) or is_video_name(path) or is_archive_name(path)


def is_result(path: Path) -> bool:
    return path.stem.endswith(RESULT)


def result_name(name: str) -> str:
    """`x.jpg` becomes `x_sr.png`, `x.mkv` `x_sr.mp4`; a tar or a parquet file stays one."""
    path = PurePosixPath(name)
    suffix = ".png"
    if not is_image_name(name):
        if is_video_name(name):
            suffix = ".mp4"
        elif is_archive_name(Path(name)):
            suffix = path.suffix.lower()
    return str(path.with_name(f"{path.stem}{RESULT}{suffix}"))
