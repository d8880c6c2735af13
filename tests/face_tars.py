"""Where the faces for training and testing are; they are not part of this project."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def face_tars(pattern):
    """The data sets of that name, sorted; without them the test is skipped."""
    folder = Path(os.environ.get("AMINET_FACES", ROOT.parent / "shared" / "faces"))
    found = sorted(folder.glob(f"{pattern}.tar"))
    if not found:
        pytest.skip(f"no {pattern}.tar in {folder}; name the folder of face tars in AMINET_FACES")
    return found
