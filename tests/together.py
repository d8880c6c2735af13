"""What torchrun starts in tests/test_distributed.py: `together.py FACES OUT`, in each process."""

import sys
from dataclasses import replace
from pathlib import Path

from aminet.train import train
from tiny_training import TINY, tiny_options

if __name__ == "__main__":
    faces, out = map(Path, sys.argv[1:])
    options = replace(tiny_options(faces, out), amp=False)
    if out.name == "minutes":
        options = replace(options, steps=None, minutes=0.02, val_every_s=0.2)
    result = train(options, replace(TINY, norm="layer"))
    who = "leader" if result.leads else "other"
    out.with_name(f"{out.name}-{who}").write_text(str(result.steps))
