"""Ablation: what each block of a network is worth.

    python -m benchmarks.studies.ablation --data celeba-val.tar [--out docs/measured/ablation.json]

Each block is left out in turn; beside the PSNR-Y lost without it stand its parameters and
multiply-adds. A block that loses nothing costs milliseconds for nothing and belongs out of the
config (aminet.training.morph removes it).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.study import report, study_parser
from benchmarks.harness.table import text_table
from runtime.errors import needs, run_command
from runtime.progress import Steps

if TYPE_CHECKING:
    from torch import Tensor, nn

RESIDUAL = ("LGFI", "TransformerBlock", "FRM", "Hourglass")  # left out, their input passes through
BRANCHES = ("SA", "RDFE")  # left out, they output zeros


@dataclass(frozen=True)
class BlockRow:
    """One block, `encoders.0.block.sa`, and the mean PSNR-Y that is lost without it."""

    block: str
    kind: str
    params: int
    macs: int
    lost_db: float


@dataclass(frozen=True)
class Ablation:
    model: str
    checkpoint_sha256: str
    data: tuple[str, ...]
    faces: int
    psnr_y: float
    rows: tuple[BlockRow, ...]


def ablate(
    data: Sequence[str | Path], *, model: str | None = None, checkpoint: str | Path | None = None
) -> Ablation:
    """Ablate the model's committed weights, or a checkpoint's, on the faces of tars and folders."""
    from aminet.checkpoint import load_model
    from aminet.info import count_macs
    from aminet.training.validation import Validation

    network, loaded = load_model(model, checkpoint)
    validation = Validation.load(data)
    whole = validation.psnr_y(network)
    macs = count_macs(loaded.config)
    rows = []
    for name, block in network.named_modules():
        kind = type(block).__name__
        if kind in RESIDUAL + BRANCHES:
            with left_out(block):
                lost = whole - validation.psnr_y(network)
            params = sum(parameter.numel() for parameter in block.parameters())
            rows.append(BlockRow(name, kind, params, macs[name], round(lost, 4)))
    names = tuple(Path(source).name for source in data)
    faces = len(validation.hr)
    return Ablation(loaded.model, loaded.sha256, names, faces, round(whole, 4), tuple(rows))


@contextmanager
def left_out(block: "nn.Module") -> Iterator[None]:
    """Meanwhile a residual block outputs its input, and a branch zeros."""
    residual = type(block).__name__ in RESIDUAL

    def replace(_block: "nn.Module", inputs: "tuple[Tensor, ...]", output: "Tensor") -> "Tensor":
        return inputs[0] if residual else output.new_zeros(output.shape)

    hook = block.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def table(result: Ablation) -> str:
    rows = [
        (row.block, row.kind, f"{row.params:,}", f"{row.macs / 1e6:.0f} M", f"{row.lost_db:.3f}")
        for row in result.rows
    ]
    columns = ("left out", "kind", "parameters", "multiply-adds", "lost dB")
    title = f"{result.model}: {result.psnr_y:.2f} dB PSNR-Y on {result.faces} faces"
    return f"{title}\n{text_table(columns, rows)}"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("train"), Steps() as steps:
        steps("leaving out each block in turn")
        result = ablate(arguments.data, model=arguments.model, checkpoint=arguments.checkpoint)
    return report(arguments, asdict(result), table(result))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("ablation", __doc__)
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 faces (required)")
    add("--model", metavar="M", help="whose committed weights (default: aminet-edge)")
    add("--checkpoint", metavar="F", help="other weights (default: the committed ones)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
