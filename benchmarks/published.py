"""The published tables by name, each read from its files in docs/measured/.

A study that publishes adds a function here, named in TABLES, and its markers to a page.
"""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import front_page, results, wild
from benchmarks.harness.arm_findings import tables as arm_tables
from benchmarks.harness.browser_report import browser_tables
from benchmarks.harness.machine import Machine
from benchmarks.harness.rows import Latency, read_latency
from benchmarks.harness.table import markdown_table
from benchmarks.harness.targets import TargetRow, read_rows, targets_table
from benchmarks.metrics.quality import QualityRow
from benchmarks.studies.ablation import Ablation, BlockRow
from benchmarks.studies.coldstart import ColdStart, ColdStartRow
from benchmarks.studies.engine_steps import StepRow
from benchmarks.studies.engine_tables import engines_table, steps_table
from benchmarks.studies.engines import EngineComparison, EngineRow
from benchmarks.studies.flicker import Flicker, FlickerRow, flicker_table
from benchmarks.studies.formats import FormatComparison, FormatRow, formats_table
from benchmarks.studies.profile import ArtifactProfile, OperatorShare
from benchmarks.studies.quantizers import QuantizerComparison, QuantizerRow
from benchmarks.studies.rates import read_throughput, throughput_tables
from benchmarks.studies.real_faces import DriftRow
from benchmarks.studies.scale import scale_table
from runtime.atomic import read_bytes
from runtime.errors import EdgeError

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "aminet", "export", "quantize", "benchmarks", "calib_data")
MAX_BYTES = 8 << 20
NO_TARGET = "*No target was measured yet.*"

Json = dict[str, Any]


NOT_MEASURED = "*Not measured yet: `{}`.*"


def render(name: str, measured: Path) -> str:
    """Return a table as Markdown; EdgeError if there is none of that name or its file is damaged.

    What was never measured is a line with the command that measures it.
    """
    if name not in TABLES:
        raise EdgeError(f"no table is called {name!r}, expected one of {', '.join(sorted(TABLES))}")
    file, command, table = TABLES[name]
    path = measured / file
    if file and not path.is_file():
        return NOT_MEASURED.format(command)
    try:
        return table(path)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise EdgeError(
            f"{path}: is not what {command.split()[2]} writes ({error}). Write it again with:"
            f" {command}"
        ) from error


def _speed(path: Path) -> str:
    return results.speed_table(read_latency(path))


def _server_speed(path: Path) -> str:
    return results.server_speed_tables(read_latency(path))


def _latency(path: Path) -> str:
    return results.latency_tables(read_latency(path))


def _roofline(path: Path) -> str:
    return results.roofline_table(read_latency(path))


def _sharp(_: Path) -> str:
    return results.sharp_table()


def _flicker(path: Path) -> str:
    content = _read(path)
    rows = tuple(FlickerRow(**row) for row in content["rows"])
    return flicker_table(Flicker(**{**content, "rows": rows}))


def _cost(_: Path) -> str:
    return results.cost_table()


def _quality(path: Path) -> str:
    return results.network_quality(_quality_rows(path))


def _paper(path: Path) -> str:
    return results.paper_tables(_quality_rows(path))


def _quality_rows(path: Path) -> list[QualityRow]:
    return [QualityRow(**row) for row in _read(path)["rows"]]


def _models(_: Path) -> str:
    return results.models_table()


def _drift(path: Path) -> str:
    latency = path.with_name("latency.json")
    measured: Latency | None = read_latency(latency) if latency.is_file() else None
    return results.drift_table([DriftRow(**row) for row in _read(path)["rows"]], measured)


def _quantizers(path: Path) -> str:
    content = _read(path)
    rows = tuple(QuantizerRow(**row) for row in content["rows"])
    return results.quantizers_table(QuantizerComparison(**{**content, "rows": rows}))


def _engines(path: Path) -> str:
    return engines_table(_engine_comparison(path))


def _engine_steps(path: Path) -> str:
    found = _engine_comparison(path)
    return steps_table(found) if found.steps else NOT_MEASURED.format(TABLES["engine-steps"][1])


def _engine_comparison(path: Path) -> EngineComparison:
    content = _read(path)
    rows = tuple(EngineRow(**row) for row in content["rows"])
    steps = tuple(StepRow(**row) for row in content.get("steps", ()))
    return EngineComparison(**{**content, "rows": rows, "steps": steps})


def _formats(path: Path) -> str:
    content = _read(path)
    rows = tuple(FormatRow(**row) for row in content["rows"])
    return formats_table(FormatComparison(**{**content, "rows": rows}))


def _ablation(path: Path) -> str:
    content = _read(path)
    rows = tuple(BlockRow(**row) for row in content["rows"])
    return results.ablation_table(Ablation(**{**content, "rows": rows}))


def _coldstart(path: Path) -> str:
    content = _read(path)
    rows = tuple(ColdStartRow(**row) for row in content["rows"])
    return results.coldstart_table(ColdStart(**{**content, "rows": rows}))


def _throughput(path: Path) -> str:
    return throughput_tables(read_throughput(path))


def _scale(path: Path) -> str:
    return scale_table(read_throughput(path))


def _profile(path: Path) -> str:
    content = _read(path)
    profiles = [_artifact_profile(one) for one in content["profiles"]]
    return results.profile_table(profiles, Machine(**content["machine"]))


def _artifact_profile(content: Json) -> ArtifactProfile:
    kinds, operators = (
        tuple(OperatorShare(**share) for share in content[name]) for name in ("kinds", "operators")
    )
    return ArtifactProfile(**{**content, "kinds": kinds, "operators": operators})


def _browser(path: Path) -> str:
    return browser_tables(_read(path))


def _wild(path: Path) -> str:
    return wild.gain_table(wild.read_json(path).rows)


def _wild_perceptual(path: Path) -> str:
    return wild.table(wild.read_json(path).rows, ("gain", "lpips", "identity"))


def _wild_asked(path: Path) -> str:
    return wild.asked_table(wild.read_json(path).rows)


def _poses(path: Path) -> str:
    if not path.with_name(WILD[0]).is_file():  # the upright faces
        return f"*Not measured yet: `{WILD[1]}`.*"
    turned, upright = wild.read_json(path), wild.read_json(path.with_name(WILD[0]))
    return wild.poses_table(upright.rows, turned.rows, turned.turn)


def _curve(path: Path) -> str:
    """PSNR-Y over bicubic of each kind, mean of its sizes, by the minutes of training."""
    points = _read(path)["points"]
    kinds = ("clean", "camera", "dark")
    lines = []
    for point in points:
        cells = [[v for name, v in point.items() if name.startswith(f"{kind}-")] for kind in kinds]
        means = [f"{sum(values) / len(values):+.2f}" for values in cells]
        lines.append((f"{point['minutes']:.0f}", f"{point['faces']:,}", *means))
    return markdown_table(("minutes", "faces", *kinds), lines)


def _arm(path: Path) -> str:
    return arm_tables(_read(path))


def _targets(folder: Path) -> str:
    rows = _target_rows(folder)
    return targets_table(rows) if rows else NO_TARGET


def _devices(folder: Path) -> str:
    rows = _target_rows(folder)
    return front_page.devices_table(rows) if rows else NO_TARGET


def _target_rows(folder: Path) -> list[TargetRow]:
    """The rows of every study of a target."""
    rows: list[TargetRow] = []
    for path in sorted(folder.glob("*.json")):
        found = _read(path).get("rows") or [{}]
        if {"target", "ran_on"} <= found[0].keys():
            rows += read_rows(path)
    return rows


def _summary(path: Path) -> str:
    drift = [DriftRow(**row) for row in _read(path.with_name("drift.json"))["rows"]]
    quality = _quality_rows(path.with_name("quality.json"))
    return front_page.summary_table(quality, drift, read_latency(path))


def _phones(path: Path) -> str:
    """The rows of targets.json that are for phones and boards."""
    folders = ("/litert/", "/ncnn/", "/coreml/")
    rows = [row for row in read_rows(path) if any(name in row.file for name in folders)]
    return targets_table(rows)


def _files(_: Path) -> str:
    """Every module with the first line of its docstring."""
    lines = []
    for path in (path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))):
        summary = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        if summary:
            lines.append((f"`{path.relative_to(ROOT).as_posix()}`", summary.rstrip(".")))
    return markdown_table(("file", "what it does"), lines)


def _read(path: Path) -> Json:
    content = json.loads(read_bytes(path, MAX_BYTES))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


LATENCY = ("latency.json", "python -m benchmarks.latency --out docs/measured/latency.json")
QUALITY = (
    "quality.json",
    "python -m benchmarks.accuracy --data TAR... --out docs/measured/quality.json",
)


WILD = (
    "wild.json",
    "python -m benchmarks.wild --data celeba-test.tar --out docs/measured/wild.json",
)


def _study(name: str, file: str, options: str = "") -> tuple[str, str]:
    return file, f"python -m benchmarks.studies.{name}{options} --out docs/measured/{file}"


DATA = " --data celeba-val.tar"
# name -> the file in docs/measured ("": none), the command that writes it, the table made of it
TABLES: dict[str, tuple[str, str, Callable[[Path], str]]] = {
    "speed": (*LATENCY, _speed),
    "latency": (*LATENCY, _latency),
    "roofline": (*LATENCY, _roofline),
    "paper-speed": (
        "latency-paper.json",
        "python -m benchmarks.latency --artifact artifacts/aminet-s/*.onnx --batch 1"
        " --baselines 'torch eager' --out docs/measured/latency-paper.json",
        _speed,
    ),
    "speed-amx": (
        "latency-amx.json",
        "python -m benchmarks.latency --threads 2 --backend onnxruntime openvino"
        " --out docs/measured/latency-amx.json",
        _server_speed,
    ),
    "quality": (*QUALITY, _quality),
    "paper": (*QUALITY, _paper),
    "cost": ("", "python -m aminet.info", _cost),
    "sharp": (
        "",
        "python -m benchmarks.release --checkpoint runs/amigan-edge/best.safetensors"
        " --data celeba-val.tar",
        _sharp,
    ),
    "flicker": (
        *_study(
            "flicker",
            "flicker.json",
            " --data celeba-test.tar --checkpoint aminet/weights/*-real.safetensors",
        ),
        _flicker,
    ),
    "models": ("", "python -m aminet.info", _models),
    "drift": (*_study("real_faces", "drift.json", " --data celeba-test.tar"), _drift),
    "quantizers": (*_study("quantizers", "quantizers.json", DATA), _quantizers),
    "engines": (*_study("engines", "engines.json", DATA), _engines),
    "engine-steps": (*_study("engines", "engines.json", DATA), _engine_steps),
    "formats": (*_study("formats", "formats.json"), _formats),
    "ablation": (*_study("ablation", "ablation.json", DATA), _ablation),
    "coldstart": (*_study("coldstart", "coldstart.json"), _coldstart),
    "throughput": (*_study("throughput", "throughput.json"), _throughput),
    "scale": (*_study("throughput", "throughput.json"), _scale),
    "profile": (*_study("profile", "profile.json"), _profile),
    "browser": (*_study("browser", "web.json", DATA), _browser),
    "wild": (*WILD, _wild),
    "wild-asked": (*WILD, _wild_asked),
    "wild-perceptual": (
        "wild-perceptual.json",
        "python -m benchmarks.wild --data celeba-test.tar --checkpoint"
        " aminet/weights/*.safetensors --metrics lpips identity --realesrgan --out"
        " docs/measured/wild-perceptual.json",
        _wild_perceptual,
    ),
    "poses": (
        "wild-turned.json",
        "python -m benchmarks.wild --data celeba-test.tar --turn 15"
        " --out docs/measured/wild-turned.json",
        _poses,
    ),
    "aminet-real-curve": (
        "aminet-real-curve.json",
        "python -m benchmarks.release --checkpoint runs/real/best.safetensors --data celeba-val.tar"
        " --curve docs/measured/aminet-real-curve.json",
        _curve,
    ),
    "phones": ("targets.json", "python -m benchmarks.studies.targets", _phones),
    "arm": ("arm.json", "python -m benchmarks.arm --out docs/measured/arm.json", _arm),
    "targets": ("", "python -m benchmarks.studies.targets", _targets),
    "devices": ("", "python -m benchmarks.studies.targets", _devices),
    "summary": (*LATENCY, _summary),
    "files": ("", "python -m benchmarks.publish", _files),
}
