"""Upscale faces with LiteRT, after the device has proved on the probes that it computes the same.

    python upscale.py face.png [more.png ...]      writes face_sr.png beside each

Exit status: 0 done, 1 an image cannot be read, 3 the model drifts from FP32 on this device, 5
LiteRT is not installed.
"""

import sys
from pathlib import Path

from PIL import Image

from runtime.errors import EdgeError
from runtime.session import open_session

MODEL = Path(__file__).parent / "{model}" / "litert" / "int8.tflite"


def main(paths: list[str]) -> int:
    if not paths:
        print("usage: python upscale.py FACE...", file=sys.stderr)
        return 2
    status = 0
    with open_session(MODEL) as session:  # hashes and probes first; both are checked every time
        verdict = session.verdict
        assert verdict is not None
        print(
            f"{verdict.fidelity_db:.1f} dB to FP32 on this device, at least {verdict.limit_db:.1f}"
        )
        for path in map(Path, paths):
            try:
                with Image.open(path) as image:
                    upscaled = session.upscale(image.convert("RGB"), reduce=True)
                upscaled.save(path.with_name(f"{path.stem}_sr.png"))
            except (EdgeError, OSError) as error:
                print(f"error: {path}: {error}", file=sys.stderr)
                status = 1
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
