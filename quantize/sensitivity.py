"""The sensitivity of each layer to INT8, and the time it saves: `python -m quantize.sensitivity`.

Each layer is quantized alone, calibrated once for all, so the error is its own. The time saved is
its time in ONNX Runtime in FP32 less that in INT8, each with all other layers alike.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantize.arguments import add_inputs
from quantize.options import ARTIFACT, CALIBRATION, MINUTES, PLOT_SUFFIXES
from quantize.targets import TARGETS, Target
from runtime.atomic import read_bytes, sha256_bytes, write_bytes
from runtime.drift import expected_drift_db
from runtime.errors import EdgeError, needs, run_command
from runtime.evaluation import upscale_faces
from runtime.image import Pixels, mse_y, psnr_of_mse
from runtime.manifest import read_manifest
from runtime.progress import Progress, Steps, silent

if TYPE_CHECKING:
    from quantize.engines.native import NativeEngine
    from quantize.source import SourceModel

WORK = Path(".work")
FACES = 8  # that evaluate one layer: layers differ by more than faces do
MAX_WORK_BYTES = 1 << 20


@dataclass(frozen=True)
class LayerSensitivity:
    """A layer alone in INT8: fidelity to FP32, expected drift, time saved.

    `error_share`: of the squared errors of all layers. `kept_fp32`: by the target's file, where one
    of this model lies beside it.
    """

    layer: str
    macs: int
    fidelity_db: float
    error_share: float
    expected_drift_db: float | None
    ms_saved: float | None
    kept_fp32: bool


@dataclass(frozen=True)
class Sensitivity:
    """All layers, the most sensitive first; the fidelity if their errors add, the time saved."""

    artifact: str
    target: str
    layers: tuple[LayerSensitivity, ...]
    total_fidelity_db: float
    total_ms_saved: float | None
    plot: str | None


def sensitivity(
    artifact: str | Path = ARTIFACT,
    calib: Sequence[str | Path] = (CALIBRATION,),
    target: Target = TARGETS["cpu"],
    plot: str | Path | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Quantize each layer of an FP32 artifact alone; EdgeError for what it cannot read."""
    from quantize.sensitivity_plot import check_plot, draw_sensitivity

    with needs("quantize"):
        from quantize.calibration import read_calibration
        from quantize.engines.native import NativeEngine
        from quantize.precision import layer_times_ms
        from quantize.source import read_source

    if plot:
        check_plot(Path(plot))
    source = read_source(artifact)
    calibration = read_calibration(calib, source.reads)
    progress("calibrating")
    engine = NativeEngine(source, calibration.faces)
    errors = layer_errors(source, engine, target, calibration.held_out, progress=progress)
    progress("timing")
    int8 = engine.quantize(source.layers, target)
    fp32_ms = layer_times_ms(source.content, source.layers)
    int8_ms = layer_times_ms(int8.SerializeToString(), source.layers)
    psnr_y, kept_fp32 = source.manifest.psnr_y, _kept_fp32(source, target)
    total = sum(errors[layer.name] for layer in source.layers)
    layers = []
    for layer in sorted(source.layers, key=lambda layer: -errors[layer.name]):
        fidelity_db = psnr_of_mse(errors[layer.name])
        timed = layer.name in fp32_ms and layer.name in int8_ms
        layers.append(
            LayerSensitivity(
                layer=layer.name,
                macs=layer.macs,
                fidelity_db=fidelity_db,
                error_share=errors[layer.name] / total if total else 0.0,
                expected_drift_db=expected_drift_db(psnr_y, fidelity_db) if psnr_y else None,
                ms_saved=fp32_ms[layer.name] - int8_ms[layer.name] if timed else None,
                kept_fp32=layer.name in kept_fp32,
            )
        )
    saved_ms = [layer.ms_saved for layer in layers if layer.ms_saved is not None]
    result = Sensitivity(
        artifact=str(artifact),
        target=target.name,
        layers=tuple(layers),
        total_fidelity_db=psnr_of_mse(total),
        total_ms_saved=sum(saved_ms) if saved_ms else None,
        plot=str(plot) if plot else None,
    )
    if plot:
        draw_sensitivity(result, Path(plot))
    return result


def layer_errors(
    source: "SourceModel",
    engine: "NativeEngine",
    target: Target,
    faces: Pixels,
    *,
    minutes: float = MINUTES,
    progress: Progress = silent,
) -> dict[str, float]:
    """The squared error against FP32 of each layer alone in INT8, in the target's backend.

    Killed, or out of time (EdgeError), it continues where it stopped when it is called again.
    """
    faces = faces[:FACES]
    with source.open(source.content) as fp32:
        expected = upscale_faces(fp32.run, faces)
    record = _record(source, engine, target, faces)
    errors = _recall(record)
    deadline = time.monotonic() + 60 * minutes
    for number, layer in enumerate(source.layers, 1):
        if layer.name in errors:
            continue
        if time.monotonic() > deadline:
            raise EdgeError(
                f"{source.path}: {len(errors)} of {len(source.layers)} layers measured after"
                f" {minutes:g} minutes; run it again to continue, or allow more: --minutes"
            )
        progress(f"sensitivity of layer {number} of {len(source.layers)}")
        alone_int8 = engine.quantize([layer], target)
        with source.open(alone_int8.SerializeToString(), target.backend) as alone:
            errors[layer.name] = float(mse_y(upscale_faces(alone.run, faces), expected).mean())
        write_bytes(record, json.dumps(errors).encode())
    return errors


def _record(source: "SourceModel", engine: "NativeEngine", target: Target, faces: Pixels) -> Path:
    """Where the errors of exactly this measurement are kept."""
    parts = (source.manifest.sha256, sorted(engine.ranges.items()), target, faces.tobytes())
    return WORK / f"sensitivity-{sha256_bytes(repr(parts).encode())[:16]}.json"


def _recall(record: Path) -> dict[str, float]:
    try:
        errors = json.loads(read_bytes(record, MAX_WORK_BYTES))
        return {str(name): float(error) for name, error in errors.items()}
    except (EdgeError, ValueError, TypeError, AttributeError):  # missing or damaged
        return {}


def _kept_fp32(source: "SourceModel", target: Target) -> frozenset[str]:
    """The layers that the target's file beside the source keeps in FP32."""
    with suppress(EdgeError):
        manifest = read_manifest(source.path.with_name(target.file))
        if manifest.parent_sha256 == source.manifest.sha256:
            return frozenset(manifest.flags.get("reverted", ()))
    return frozenset()


def table(result: Sensitivity) -> str:
    """One line a layer, a total, and the command that follows."""
    width = max(len("layer"), *(len(layer.layer) for layer in result.layers))
    lines = [f"{'layer':{width}}    MMACs  fidelity  error share  expected drift  ms saved"]
    for layer in result.layers:
        drift = "" if layer.expected_drift_db is None else f"{layer.expected_drift_db:.4f} dB"
        saved = "" if layer.ms_saved is None else f"{layer.ms_saved:.3f}"
        kept = "  kept in FP32" if layer.kept_fp32 else ""
        lines.append(
            f"{layer.layer:{width}} {layer.macs / 1e6:8.2f} {layer.fidelity_db:6.1f} dB"
            f" {layer.error_share:12.1%} {drift:>15} {saved:>9}{kept}"
        )
    macs = sum(layer.macs for layer in result.layers)
    saved = "" if result.total_ms_saved is None else f"{result.total_ms_saved:.3f}"
    lines.append(
        f"{'all, if errors add':{width}} {macs / 1e6:8.2f} {result.total_fidelity_db:6.1f} dB"
        f" {1:12.1%} {'':>15} {saved:>9}"
    )
    lines.append(
        "next: python -m quantize.int8 --calib calib_data/"
        f" --artifact {result.artifact} --target {result.target}"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with Steps() as steps:
        result = sensitivity(
            arguments.artifact, arguments.calib, TARGETS[arguments.target], arguments.plot, steps
        )
    print(json.dumps(asdict(result)) if arguments.json else table(result))
    if result.plot:
        print(f"plot: {result.plot}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.sensitivity",
        description="What each layer costs in INT8 and what it saves, the most sensitive first.",
    )
    add_inputs(parser)
    parser.add_argument(
        "--target", choices=TARGETS, default="cpu", help="whose grid and backend (default: cpu)"
    )
    parser.add_argument(
        "--plot", metavar="F.png", help=f"draw it too: {', '.join(PLOT_SUFFIXES)} (default: not)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
