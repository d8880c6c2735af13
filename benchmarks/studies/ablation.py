"""Ablation of each block: `python -m benchmarks.studies.ablation --data celeba-val.tar`.

Every block is left out in turn, and the faces are enlarged without it; beside the PSNR-Y that
this costs stand its parameters and multiply-adds. A block that costs nothing to leave out spends
its milliseconds for nothing, and belongs out of the config (aminet.training.morph takes it out).
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.errors import needs, run_command

with needs("train", __name__):
    import torch
    from torch import Tensor, nn

    from aminet.blocks import FRM, LGFI, RDFE, SA, Hourglass, TransformerBlock
    from aminet.checkpoint import load_model
    from aminet.info import count_macs
    from aminet.training.validation import Validation

from runtime.atomic import write_bytes

RESIDUAL = (LGFI, TransformerBlock, FRM, Hourglass)  # left out, their input goes on
BRANCHES = (SA, RDFE)  # left out, nothing goes on


@dataclass(frozen=True)
class Row:
    """One block, `encoders.0.block.sa`, and the mean PSNR-Y that is lost without it."""

    block: str
    kind: str
    params: int
    macs: int
    lost_db: float


@dataclass(frozen=True)
class Blocks:
    model: str
    checkpoint_sha256: str
    data: tuple[str, ...]
    faces: int
    psnr_y: float
    rows: tuple[Row, ...]


def blocks(
    data: Sequence[str | Path], *, model: str | None = None, checkpoint: str | Path | None = None
) -> Blocks:
    """Of the model's committed weights, or of a checkpoint's, on the faces of tars and folders."""
    network, loaded = load_model(model, checkpoint)
    validation = Validation.load(data)
    whole = validation.psnr_y(network)
    macs = count_macs(loaded.config)
    rows = []
    for name, block in network.named_modules():
        if isinstance(block, RESIDUAL + BRANCHES):
            with left_out(block):
                lost = whole - validation.psnr_y(network)
            params = sum(parameter.numel() for parameter in block.parameters())
            rows.append(Row(name, type(block).__name__, params, macs[name], round(lost, 4)))
    names = tuple(Path(source).name for source in data)
    faces = len(validation.hr)
    return Blocks(loaded.model, loaded.sha256, names, faces, round(whole, 4), tuple(rows))


@contextmanager
def left_out(block: nn.Module) -> Iterator[None]:
    """Meanwhile a residual block gives what it is given, and a branch zeros."""

    def instead(_block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return inputs[0] if isinstance(block, RESIDUAL) else torch.zeros_like(output)

    hook = block.register_forward_hook(instead)
    try:
        yield
    finally:
        hook.remove()


def table(result: Blocks) -> str:
    lines = [
        f"{result.model}: {result.psnr_y:.2f} dB on {result.faces} faces",
        f"{'without':38} {'':16} {'parameters':>10} {'MACs':>8} {'lost, dB':>9}",
    ]
    for row in result.rows:
        lines.append(
            f"{row.block:38} {row.kind:16} {row.params:10,} {row.macs / 1e6:6.0f} M"
            f" {row.lost_db:9.3f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.ablation", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="TAR_OR_DIR")
    parser.add_argument("--model", help="default aminet-edge")
    parser.add_argument("--checkpoint", metavar="F", help="instead of the committed weights")
    parser.add_argument("--out", type=Path, metavar="F.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(argv)
    result = blocks(given.data, model=given.model, checkpoint=given.checkpoint)
    if given.out:
        write_bytes(given.out, f"{json.dumps(asdict(result), indent=1)}\n".encode())
    print(json.dumps(asdict(result)) if given.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
