"""What to deploy, as one HTML file that needs nothing else: `python -m benchmarks.report`.

Speed comes from what `benchmarks.latency` wrote (docs/measured/latency.json, and sizes.json beside
it) where that was on this processor, else from a short measurement of its own; all else is measured
anew: faces, fidelity in each backend, ONNX Runtime's profile, what each layer costs in INT8.
"""

import argparse
import base64
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from calib_data.generate import PROBE_STRIP, unstrip
from runtime import drift
from runtime.errors import EdgeError, needs, run_command

with needs("train,export,quantize,eval,bench", __name__):
    import jinja2

    from benchmarks import charts
    from benchmarks.demo import FACES_OF_NOBODY, aligned_astronaut
    from benchmarks.harness.baselines import NAMES
    from benchmarks.harness.entries import CALIBRATION
    from benchmarks.harness.facts import Facts
    from benchmarks.harness.machine import QUIET_SHARE, cores
    from benchmarks.harness.table import cells
    from benchmarks.latency import Plan, latency
    from benchmarks.regress import gather
    from benchmarks.studies.profile import profile
    from quantize.sensitivity import sensitivity

from runtime.atomic import read_bytes, write_bytes
from runtime.cpu import processor
from runtime.image import Pixels, read_image, shrink, upscale_bicubic
from runtime.manifest import read_manifest
from runtime.session import DEFAULT_MODEL, open_session

OUT = Path("artifacts", "report.html")
MEASURED = Path("docs", "measured", "latency.json")
TEMPLATE = Path(__file__).with_name("report.html.j2")
MAX_BYTES = 8 << 20
DIFFERENCE_GAIN = 16
QUICK_PEERS = tuple(name for name in NAMES if name not in ("torch.compile", "NNCF INT8"))
QUICK_SECONDS = 1.0
SCALED = ("torch eager", "fp32.onnx", "int8.onnx")  # whose scaling is drawn

Json = Mapping[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    path: str
    verdict: str
    notes: tuple[str, ...]


def report(
    folder: Path = Path("artifacts", DEFAULT_MODEL),
    out: Path = OUT,
    measured: Path = MEASURED,
    calib: Sequence[str | Path] = (CALIBRATION,),
    checkpoint: str | Path | None = None,
    say: Say = lambda line: None,
) -> Report:
    """Write the report of the artifacts in a folder; EdgeError where fp32.onnx is not there."""
    fp32 = folder / "fp32.onnx"
    paths = sorted(folder.glob("*.onnx"))
    found = gather(paths, say) if fp32.is_file() else ()
    if not found:
        raise EdgeError(f"{fp32}: is not there; make it: make demo")
    notes: list[str] = []
    speed = read_latency(measured, folder, notes) or measure_latency(paths, checkpoint, notes, say)
    small = folder / "int8.onnx" if (folder / "int8.onnx").is_file() else fp32
    say("profiling")
    profiles = [asdict(profile(path)) for path in dict.fromkeys((fp32, small))]
    say("measuring each layer in INT8")
    layers = [asdict(layer) for layer in sensitivity(fp32, calib, progress=say).layers]
    say("enlarging faces")
    manifest = read_manifest(fp32)
    budget_db = drift.BUDGET_DB
    if manifest.psnr_y is not None:
        budget_db = drift.budget_fidelity_db(manifest.psnr_y, manifest.max_drop_db)
    rows = [row for row in speed["rows"] if row["model"] == manifest.model]
    points = number(one_face(rows))
    verdict = what_to_deploy(points, budget_db)
    page = render(
        model=manifest.model,
        machine=speed["machine"],
        threads=points[0]["threads"],
        verdict=verdict,
        notes=notes,
        points=points,
        charts={
            "pareto": charts.pareto(points, budget_db),
            "heat_map": charts.heat_map(heat_cells(found)),
            "profile": charts.where_time_goes(profiles),
            "sensitivity": charts.sensitivity(layers),
            "scaling": charts.scaling(lines) if (lines := scaling_lines(rows)) else "",
            "sizes": charts.sizes(sizes) if (sizes := read_sizes(measured)) else "",
        },
        layer_count=len(layers),
        faces=draw_faces(fp32, small),
        small_name=read_manifest(small).precision.upper(),
        facts=[fact_cells(one) for one in found],
        about=about(speed),
    )
    write_bytes(out, page.encode())
    return Report(str(out), verdict, tuple(notes))


def render(**content: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(TEMPLATE.name).render(content)


def read_latency(path: Path, folder: Path, notes: list[str]) -> Json | None:
    """What benchmarks.latency wrote, if it was on this kind of processor and on these files."""
    if not path.is_file():
        return None
    try:
        content = json.loads(read_bytes(path, MAX_BYTES))
        where, rows = content["machine"]["processor"], content["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeError(
            f"{path}: is not what benchmarks.latency writes ({error}); write it again:"
            f" python -m benchmarks.latency --out {path}"
        ) from error
    here = {read_manifest(file).sha256 for file in folder.glob("*.onnx")}
    same = all(row["sha256"] in here for row in rows if not row["peer"])
    if where != processor() or not rows or not same:
        other = "other files" if where == processor() else where
        notes.append(f"{path} is of {other}: speed was measured anew, for a short time.")
        return None
    notes += [str(note) for note in content["notes"] if "busy" in note]
    return dict(content)


def read_sizes(measured: Path) -> Sequence[Json]:
    """What benchmarks.studies.sizes wrote beside it, if it was on this kind of processor."""
    path = measured.with_name("sizes.json")
    if not path.is_file():
        return []
    content = json.loads(read_bytes(path, MAX_BYTES))
    return content["rows"] if content["machine"]["processor"] == processor() else []


def measure_latency(
    paths: Sequence[Path], checkpoint: str | Path | None, notes: list[str], say: Say
) -> Json:
    """A short measurement: one face, all cores, the peers that are quick to make."""
    plan = Plan((1,), (cores(),), QUICK_SECONDS, cold_starts=1)
    result = latency(paths, peers=QUICK_PEERS, plan=plan, checkpoint=checkpoint, say=say)
    if result.others_share > QUIET_SHARE:
        notes.append(f"The machine was busy: others took {result.others_share:.0%} of it.")
    return json.loads(json.dumps(asdict(result)))


def one_face(rows: Sequence[Json]) -> list[Json]:
    """The rows of one face with the most threads."""
    threads = max((row["threads"] for row in rows), default=1)
    found = [row for row in rows if (row["batch"], row["threads"]) == (1, threads)]
    if not found:
        raise EdgeError(
            "no time of a single face was measured; measure: python -m benchmarks.latency"
        )
    return found


def number(rows: Sequence[Json]) -> list[dict[str, Any]]:
    """The rows, numbered from the quickest, with the cells of the table."""
    ordered = sorted(rows, key=lambda row: row["p50_ms"])
    chosen = [0, 1, 2, 3, 4, *range(6, 14)]  # of the table's columns: all but p99
    return [
        {**row, "number": place, "cells": [_cell(row, column) for column in chosen]}
        for place, row in enumerate(ordered, 1)
    ]


def _cell(row: Json, column: int) -> str:
    cell = cells(row)[column]
    return cell.split("/")[-1] if column == 0 else cell


def what_to_deploy(points: Sequence[Json], budget_db: float) -> str:
    """One sentence: the quickest of ours within the budget, against the best of the peers there."""
    sound = [point for point in points if point["fidelity_db"] >= budget_db]
    ours = min((p for p in sound if not p["peer"]), key=lambda p: p["p50_ms"], default=None)
    if ours is None:
        return "Deploy nothing yet: no artifact holds the drift budget on this machine."
    said = f"Deploy {ours['name']} in {ours['backend']}: {ours['p50_ms']:.1f} ms a face"
    if ours["ratio_to_eager"]:
        said += f", {ours['ratio_to_eager']:.1f} times as fast as torch eager"
    peer = min((p for p in sound if p["peer"]), key=lambda p: p["p50_ms"], default=None)
    if peer and peer["p50_ms"] < ours["p50_ms"]:
        said += (
            f"; {peer['name']} is quicker within the budget, {peer['p50_ms']:.1f} ms at"
            f" {peer['bytes'] / 1e6:.1f} MB"
        )
    elif peer:
        ratio = peer["p50_ms"] / ours["p50_ms"]
        said += f" and {ratio:.1f} times as fast as the best peer within the budget, {peer['name']}"
    return (
        f"{said}; {ours['bytes'] / 1e6:.1f} MB, {ours['fidelity_db']:.1f} dB to FP32 where the"
        f" budget asks for {budget_db:.1f}."
    )


def heat_cells(found: Sequence[Facts]) -> list[Json]:
    return [
        {
            "file": one.artifact.split("/")[-1],
            "backend": one.backend,
            "fidelity_db": one.fidelity_db,
            "passed": one.passed,
        }
        for one in found
    ]


def fact_cells(one: Facts) -> Json:
    drift_db = one.expected_drift_db
    return {
        **asdict(one),
        "drift": "" if drift_db is None else f"{drift_db:.3f} dB",
        "share": "" if one.int8_mac_share is None else f"{one.int8_mac_share:.1%}",
        "megabytes": f"{one.bytes / 1e6:.1f}",
    }


def scaling_lines(rows: Sequence[Json]) -> list[Json]:
    """Time a face against the batch, for some contenders on each number of threads."""
    found: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for row in rows:
        name = row["name"].split("/")[-1]
        if name in SCALED and row["backend"] != "openvino":
            point = (row["batch"], row["p50_ms"] / row["batch"])
            found.setdefault((name, row["threads"]), []).append(point)
    return [
        {
            "label": f"{name}, {threads} thread{'' if threads == 1 else 's'}",
            "threads": threads,
            "batches": [batch for batch, _ in points],
            "ms_a_face": [ms for _, ms in points],
        }
        for (name, threads), points in found.items()
        if len(points) > 1
    ]


def draw_faces(fp32: Path, small: Path) -> list[Json]:
    """Input, bicubic, FP32, the small artifact and their difference, as data URIs."""
    lrs = (shrink(aligned_astronaut()), *unstrip(read_image(PROBE_STRIP))[:FACES_OF_NOBODY])
    names = ("the astronaut", *(f"nobody {i + 1}" for i in range(FACES_OF_NOBODY)))
    with open_session(fp32) as full, open_session(small) as reduced:
        return [
            _pictures(name, lr, full.upscale(lr), reduced.upscale(lr))
            for name, lr in zip(names, lrs, strict=True)
        ]


def _pictures(name: str, lr: Pixels, full: Pixels, small: Pixels) -> Json:
    difference = np.abs(full.astype(int) - small) * DIFFERENCE_GAIN
    pictures = {
        "input": lr,
        "bicubic": upscale_bicubic(lr),
        "fp32": full,
        "small": small,
        "difference": np.minimum(difference, 255).astype(np.uint8),
    }
    return {"name": name, **{kind: data_uri(pixels) for kind, pixels in pictures.items()}}


def data_uri(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def about(speed: Json) -> list[tuple[str, str]]:
    """The machine and the versions, as name and value."""
    where = speed["machine"]
    load = ", ".join(f"{average:.1f}" for average in where["load_average"])
    reached = [
        (
            f"limit, {limit['precision']}, {limit['threads']} threads",
            f"{limit['gmacs_per_s']:.0f} G multiply-adds a second ({limit['reached_by']})",
        )
        for limit in speed["limits"]
    ]
    return [
        ("processor", where["processor"]),
        ("cores", str(where["cores"])),
        ("system", where["system"]),
        ("load average", load),
        ("commit", str(where["commit"])),
        ("Python", where["python"]),
        *where["versions"].items(),
        *reached,
    ]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    result = report(
        arguments.artifacts,
        arguments.out,
        arguments.latency,
        checkpoint=arguments.checkpoint,
        say=lambda line: print(line, file=sys.stderr),
    )
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(asdict(result)) if arguments.json else f"{result.verdict}\n{result.path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__.split("\n")[0]
    )
    default = Path("artifacts", DEFAULT_MODEL)
    parser.add_argument("--artifacts", type=Path, default=default, metavar="DIR")
    parser.add_argument("--latency", type=Path, default=MEASURED, metavar="F.json")
    parser.add_argument("--checkpoint", metavar="F", help="default: the model's weights")
    parser.add_argument("--out", type=Path, default=OUT, help=f"default: {OUT}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
