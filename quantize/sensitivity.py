"""What each layer costs in INT8, and what it saves: `python -m quantize.sensitivity`.

Each layer is quantized alone, calibrated once for all, so the error is its own. What it saves is
its time in ONNX Runtime in FP32 less that in INT8, each with all other layers alike.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from runtime.errors import EdgeError, needs, run_command

with needs("quantize", __name__):
    from quantize.budget import enlarge
    from quantize.calibration import Calibrated, calibrate, read_faces
    from quantize.precision import layer_times_ms
    from quantize.qdq import quantize_layers
    from quantize.source import ARTIFACT, Subject, open_content, read_subject
    from quantize.targets import TARGETS, Target

from runtime.atomic import read_bytes, sha256_bytes, write_bytes
from runtime.drift import expected_drift_db
from runtime.image import Pixels, mse_y, psnr_of_mse

WORK = Path(".work")
FACES = 8  # that judge one layer: layers differ by more than faces do
MINUTES = 10.0
MAX_WORK_BYTES = 1 << 20
Progress = Callable[[str], None]


@dataclass(frozen=True)
class LayerCost:
    """A layer quantized alone: fidelity to FP32, PSNR-Y expected to be lost, time saved."""

    layer: str
    macs: int
    fidelity_db: float
    expected_drift_db: float | None
    ms_saved: float | None


@dataclass(frozen=True)
class Sensitivity:
    """All layers, the costliest first."""

    artifact: str
    target: str
    layers: tuple[LayerCost, ...]
    plot: str | None


def sensitivity(
    artifact: str | Path = ARTIFACT,
    calib: Sequence[str | Path] = ("calib_data",),
    target: Target = TARGETS["cpu"],
    plot: str | Path | None = None,
    progress: Progress = lambda step: None,
) -> Sensitivity:
    """Quantize each layer of an FP32 artifact alone; EdgeError for what it cannot read."""
    subject, faces = read_subject(artifact), read_faces(calib)
    calibrated = calibrate(subject.model, subject.layers, faces.faces)
    errors = layer_errors(subject, calibrated, target, faces.held_out, progress=progress)
    quantized = quantize_layers(calibrated.model, calibrated.layers, calibrated.ranges, target)
    progress("timing")
    fp32_ms = layer_times_ms(subject.artifact.model, subject.layers)
    int8_ms = layer_times_ms(quantized.SerializeToString(), subject.layers)
    psnr_y = subject.manifest.psnr_y
    costs = []
    for layer in sorted(subject.layers, key=lambda layer: -errors[layer.name]):
        fidelity_db = psnr_of_mse(errors[layer.name])
        timed = layer.name in fp32_ms and layer.name in int8_ms
        costs.append(
            LayerCost(
                layer=layer.name,
                macs=layer.macs,
                fidelity_db=fidelity_db,
                expected_drift_db=expected_drift_db(psnr_y, fidelity_db) if psnr_y else None,
                ms_saved=fp32_ms[layer.name] - int8_ms[layer.name] if timed else None,
            )
        )
    if plot:
        write_bytes(plot, draw(costs).encode())
    return Sensitivity(str(artifact), target.name, tuple(costs), str(plot) if plot else None)


def layer_errors(
    subject: Subject,
    calibrated: Calibrated,
    target: Target,
    faces: Pixels,
    *,
    minutes: float = MINUTES,
    progress: Progress = lambda step: None,
) -> dict[str, float]:
    """The squared error against FP32 of each layer, when it alone is INT8, in the target's backend.

    Killed, or out of time (EdgeError), it goes on where it was when it is asked again.
    """
    faces = faces[:FACES]
    with open_content(subject, "onnxruntime", subject.artifact.model) as fp32:
        expected = enlarge(fp32.run, faces)
    record = _record(subject, calibrated, target, faces)
    errors = _recall(record)
    deadline = time.monotonic() + 60 * minutes
    for number, layer in enumerate(calibrated.layers, 1):
        if layer.name in errors:
            continue
        if time.monotonic() > deadline:
            raise EdgeError(
                f"{subject.path}: {len(errors)} of {len(subject.layers)} layers measured after"
                f" {minutes:g} minutes; run it again to go on, or give it --minutes"
            )
        progress(f"layer {number} of {len(subject.layers)}")
        alone_int8 = quantize_layers(calibrated.model, [layer], calibrated.ranges, target)
        with open_content(subject, target.backend, alone_int8.SerializeToString()) as alone:
            errors[layer.name] = float(mse_y(enlarge(alone.run, faces), expected).mean())
        write_bytes(record, json.dumps(errors).encode())
    return errors


def _record(subject: Subject, calibrated: Calibrated, target: Target, faces: Pixels) -> Path:
    """Where the errors are kept of exactly this measurement."""
    ranges = sorted(calibrated.ranges.items())
    parts = (subject.manifest.sha256, ranges, target, faces.tobytes())
    return WORK / f"sensitivity-{sha256_bytes(repr(parts).encode())[:16]}.json"


def _recall(record: Path) -> dict[str, float]:
    try:
        errors = json.loads(read_bytes(record, MAX_WORK_BYTES))
        return {str(name): float(error) for name, error in errors.items()}
    except (EdgeError, ValueError, TypeError, AttributeError):  # not there, or not whole
        return {}


ROW, LABEL, BAR = 16, 300, 400  # px


def draw(costs: Sequence[LayerCost]) -> str:
    """An SVG with a bar for each layer, as long as its part of the error of all."""
    errors = [10 ** (-cost.fidelity_db / 10) for cost in costs]
    rows = []
    for number, (cost, error) in enumerate(zip(costs, errors, strict=True)):
        y, length = (number + 1) * ROW, BAR * error / max(errors)
        rows.append(
            f'<text x="{LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(cost.layer)}</text>'
            f'<rect x="{LABEL}" y="{y + 2}" width="{length:.1f}" height="{ROW - 4}"/>'
            f'<text x="{LABEL + length + 6:.1f}" y="{y + 11}">{describe_saved(cost)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + BAR + 200}"'
        f' height="{(len(costs) + 2) * ROW}" font-family="sans-serif" font-size="11"'
        ' fill="#1a1a1a">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def describe_saved(cost: LayerCost) -> str:
    saved = "" if cost.ms_saved is None else f", {cost.ms_saved:.2f} ms saved"
    return f"{cost.fidelity_db:.1f} dB{saved}"


def table(costs: Sequence[LayerCost]) -> str:
    width = max(len(cost.layer) for cost in costs)
    lines = [f"{'layer':{width}}    MMACs  fidelity  expected drift  ms saved"]
    for cost in costs:
        drift = "" if cost.expected_drift_db is None else f"{cost.expected_drift_db:.4f} dB"
        saved = "" if cost.ms_saved is None else f"{cost.ms_saved:.3f}"
        lines.append(
            f"{cost.layer:{width}} {cost.macs / 1e6:8.2f} {cost.fidelity_db:6.1f} dB"
            f" {drift:>15} {saved:>9}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    result = sensitivity(
        arguments.artifact,
        arguments.calib,
        TARGETS[arguments.target],
        arguments.plot,
        show_step if sys.stderr.isatty() else lambda step: None,
    )
    print(json.dumps(asdict(result)) if arguments.json else table(result.layers))
    return 0


def show_step(step: str) -> None:
    print(f"\r\033[K{step} ...", end="\r", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.sensitivity",
        description="What each layer costs in INT8 and what it saves, the costliest first.",
    )
    parser.add_argument("--artifact", default=ARTIFACT, metavar="F", help=f"default: {ARTIFACT}")
    parser.add_argument(
        "--calib", nargs="+", default=["calib_data"], metavar="P", help="default: calib_data"
    )
    parser.add_argument("--target", choices=TARGETS, default="cpu", help="default: cpu")
    parser.add_argument("--plot", metavar="F.svg", help="draw it too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
