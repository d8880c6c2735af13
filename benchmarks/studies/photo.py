"""What keeping the photo's own pixels gains: faces of 16 to 56 px, enlarged in three ways.

    python -m benchmarks.studies.photo --data TAR_OR_DIR... [--artifact F] [--faces N] [--json]

A face in a photo has any size, and the network reads 16x16. PSNR-Y of bicubic enlargement, of the
network alone, and of the network with what the photo knows kept (runtime.media.photo), by the side
of the training frame in the photo; the box of a face is 0.59 of that across.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from runtime.dataset import load_faces
from runtime.errors import run_command
from runtime.image import SR_SIDE, Pixels, psnr_y, shrink, to_pixels, to_tensor
from runtime.media.photo import keep_what_is_known
from runtime.session import Session, open_session

SIDES = (16, 20, 24, 32, 40, 48, 56)  # px of the photo; a face of 32 px across takes 54


@dataclass(frozen=True)
class Row:
    """PSNR-Y in dB, means over the faces, of pictures `side_px` across enlarged to 128."""

    side_px: int
    faces: int
    bicubic_db: float
    network_db: float
    kept_db: float


def measure(faces: Pixels, session: Session) -> list[Row]:
    """A row for each side; faces (N, 128, 128, 3)."""
    return [_row(faces, side, session) for side in SIDES]


def _row(faces: Pixels, side: int, session: Session) -> Row:
    each = np.array([_psnr_of_ways(face, side, session) for face in faces])
    bicubic_db, network_db, kept_db = each.mean(axis=0).tolist()
    return Row(side, len(faces), bicubic_db, network_db, kept_db)


def _psnr_of_ways(face: Pixels, side: int, session: Session) -> tuple[float, float, float]:
    seen = _resize(face, side)
    network = to_pixels(session.run(to_tensor(shrink(seen)[None])))[0]
    kept = keep_what_is_known(network, seen)
    return psnr_y(_resize(seen, SR_SIDE), face), psnr_y(network, face), psnr_y(kept, face)


def _resize(pixels: Pixels, side: int) -> Pixels:
    return np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="TAR_OR_DIR")
    parser.add_argument("--artifact", metavar="F", help="else the one that infer takes by itself")
    parser.add_argument("--faces", type=int, default=100, metavar="N", help="at most")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    with open_session(options.artifact) as session:
        rows = measure(load_faces(options.data, limit=options.faces), session)
        made_by = {"artifact": str(session.artifact), "backend": session.backend}
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], **made_by}))
        return 0
    print(f"{rows[0].faces} faces, PSNR-Y in dB\n\nside px  bicubic  network  network, photo kept")
    for row in rows:
        print(f"{row.side_px:7} {row.bicubic_db:8.2f} {row.network_db:8.2f} {row.kept_db:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
