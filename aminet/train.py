"""Train a model on tars and folders of 128x128 faces: `python -m aminet.train`.

Writes into --out: best.safetensors (the averaged weights that did best on --val, else the latest;
with --gan and --qat the latest), state.safetensors (for --resume), log.jsonl, log.csv, curves.png,
with --val sheet.png, and with --tensorboard its event files. Models of 16-px input are trained on
bicubically shrunk faces, aminet-real on degraded ones. torchrun starts it on several processes.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from aminet.config import ModelConfig
from aminet.training.options import TrainOptions, build_parser, make_options
from runtime.errors import needs, run_command
from runtime.progress import Progress, Steps, silent
from runtime.spinning import spin_little

if TYPE_CHECKING:
    from aminet.training.run import TrainResult

__all__ = ["TrainOptions", "main", "train"]


def train(
    options: TrainOptions, config: ModelConfig | None = None, progress: Progress = silent
) -> "TrainResult":
    """Train until the minutes or steps are over; with resume go on from the files in `out`.

    Raises EdgeError on data, checkpoints or a folder that do not fit. Ctrl-C, a loss that is not
    finite, too little memory and a full disk raise it too, with the fix, and leave a usable
    checkpoint.
    """
    spin_little()  # before torch loads libgomp
    with needs("train"):
        from aminet.training.run import run
    if options.tensorboard:
        with needs("tensorboard"):
            import torch.utils.tensorboard  # noqa: F401
    return run(options, config, progress)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(build_parser(__doc__), _run, argv)


def _run(given: argparse.Namespace) -> int:
    options = make_options(given)
    with Steps() as progress:
        result = train(options, progress=progress)
    if not result.leads:
        return 0
    if given.json:
        print(json.dumps({k: v for k, v in asdict(result).items() if k != "leads"}))
    else:
        quality = "" if result.best_psnr_y is None else f", {result.best_psnr_y:.2f} dB PSNR-Y"
        print(f"{result.checkpoint}: {result.steps} steps{quality}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
