"""Ranges for quantization-aware training: `python -m quantize.ranges` writes ranges.json.

What quantize.int8 finds before it quantizes: cross-layer equalization, and the range of each
activation on the calibration set. `python -m aminet.train --qat` starts from it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantize.arguments import add_inputs
from quantize.options import ARTIFACT, CALIBRATION
from runtime.activation_ranges import FILE, Channels, RangeFile, write_range_file
from runtime.errors import needs, run_command

if TYPE_CHECKING:
    from quantize.equalize import Equalized


@dataclass(frozen=True)
class WrittenRanges:
    """The file, and what it is of."""

    ranges: str
    model: str
    checkpoint_sha256: str
    layers: int
    activations: int


def write_ranges(
    artifact: str | Path = ARTIFACT,
    calib: Sequence[str | Path] = (CALIBRATION,),
    out: str | Path | None = None,
) -> WrittenRanges:
    """Calibrate an FP32 artifact and write what is found (`out`: ranges.json beside it)."""
    with needs("quantize"):
        from quantize.activations import calibrate
        from quantize.calibration import read_calibration
        from quantize.layers import module_name
        from quantize.source import read_source

    source = read_source(artifact)
    calibration = read_calibration(calib, source.reads)
    # What has no bias is not trained: the transforms of the input, whose kernels are constants.
    convolutions = [node for node in source.model.graph.node if node.op_type == "Conv"]
    fixed = {module_name(node) for node in convolutions if len(node.input) < 3}
    layers = [layer for layer in source.layers if layer.name not in fixed]
    found = calibrate(source.model, layers, calibration.faces, source.feed, fixed)
    content = RangeFile(
        source.manifest.model,
        source.manifest.checkpoint_sha256,
        calibration.sha256,
        found.to_start(),
        _channels(found.equalized),
    )
    path = source.path.with_name(FILE) if out is None else Path(out)
    write_range_file(path, content)
    return WrittenRanges(
        str(path),
        content.model,
        content.checkpoint_sha256,
        len(content.ranges.layers),
        len(content.ranges.ranges),
    )


def _channels(equalized: "Equalized | None") -> dict[str, Channels]:
    """The factors and classes of each convolution's channels, the classes numbered from 1 on."""
    assert equalized is not None
    known = sorted({each for both in equalized.classes.values() for ids in both for each in ids})
    number = {each: place for place, each in enumerate([0, *(k for k in known if k)])}
    channels = {}
    for name, (out, read) in equalized.classes.items():
        of_output, of_input = equalized.convolutions[name]
        channels[name] = Channels(
            tuple(map(float, of_output)),
            tuple(map(float, of_input)),
            tuple(number[each] for each in out),
            tuple(number[each] for each in read),
        )
    return channels


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    made = write_ranges(arguments.artifact, arguments.calib, arguments.out)
    if arguments.json:
        print(json.dumps(asdict(made)))
    else:
        print(f"{made.ranges}: {made.activations} activations of {made.layers} layers")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantize.ranges", description=__doc__)
    add_inputs(parser)
    parser.add_argument("--out", metavar="F", help=f"default: {FILE} beside the artifact")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
