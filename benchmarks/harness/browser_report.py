"""What the study of the page reports: a row and a speed for each backend, and their tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.browser_peer import PeerRow, peer_table
from benchmarks.harness.targets import TargetRow, targets_table
from runtime.cpu import processor
from runtime.evaluation import Evaluation

EMULATED = "emulated"  # in the name of a backend that is not timed
COMMAND = "python -m benchmarks.studies.browser"
# The page's runtimes, and what they are called.
RUNTIMES = {"onnxruntime-web": "ONNX Runtime Web", "@litertjs/core": "LiteRT.js"}


@dataclass(frozen=True)
class Speed:
    """Milliseconds a face, the median of the turns; each is the median over the probe faces.

    `loaded_bytes` are all that the page loads for this backend.
    """

    runtime: str
    backend: str
    computes: str
    threads: int
    ms: float
    turns_ms: tuple[float, ...]
    loaded_bytes: int


@dataclass(frozen=True)
class BrowserReport:
    """Rows and speeds are of the same backends in the same order.

    `browser` is its name and version; `note` says what the speeds are worth.
    """

    rows: tuple[TargetRow, ...]
    speeds: tuple[Speed, ...]
    peers: tuple[PeerRow, ...]
    browser: str
    note: str


@dataclass(frozen=True)
class Seen:
    """What the page chose for a backend, and what real faces lose in it."""

    attempt: Mapping[str, Any]
    evaluation: Evaluation | None


def target_row(
    manifest: Mapping[str, Any],
    backend: str,
    seen: Seen,
    browser: str,
) -> TargetRow:
    attempt, evaluation = seen.attempt, seen.evaluation
    fidelity, file = attempt["fidelity"], attempt["route"]["artifact"]
    return TargetRow(
        target=f"{RUNTIMES[attempt['route']['runtime']]} {attempt['version']}, {backend}",
        file=f"{manifest['model']}/{Path(file).name}",
        bytes=manifest["files"][file]["bytes"],
        precision=_precision(attempt["route"]),
        fidelity_db=fidelity["fidelity_db"],
        worst_fidelity_db=fidelity["worst_fidelity_db"],
        extremes_fidelity_db=fidelity["extremes_fidelity_db"],
        ran_on=f"{browser}, {processor()}",
        command=COMMAND,
        drift_db=evaluation.drift_db if evaluation else None,
        worst_drift_db=evaluation.worst_drift_db if evaluation else None,
        faces=evaluation.faces if evaluation else 0,
    )


def _computes(route: Mapping[str, Any]) -> str:
    """As the page says it, without the runtime."""
    label: str = route["label"]
    return label.partition(" by ")[0]


def _precision(route: Mapping[str, Any]) -> str:
    """The same as other targets say it, with what is INT8 in the file."""
    computes = _computes(route).replace("INT8", "int8").replace("FP32", "fp32")
    share = route["int8_mac_share"]
    return f"{computes}, {share:.1%} of the multiply-adds, as the file says" if share else computes


def speed_of(
    manifest: Mapping[str, Any], backend: str, attempts: Sequence[Mapping[str, Any]]
) -> Speed:
    route, turns_ms = attempts[0]["route"], tuple(attempt["ms"] for attempt in attempts)
    runtimes = {route["runtime"], "onnxruntime-web"}  # the detector needs it
    runtime = [
        name for each in runtimes for name in manifest["runtimes"][each][route["provider"]].values()
    ]
    page = [name for name in manifest["files"] if "/" not in name or name.startswith("runtimes/")]
    always = ["model/probes.json", "detector/centerface.onnx", f"{route['artifact']}.json"]
    loaded = [route["artifact"], *runtime, *page, *always]
    return Speed(
        runtime=RUNTIMES[route["runtime"]],
        backend=backend,
        computes=_computes(route),
        threads=attempts[0]["threads"],
        ms=median(turns_ms),
        turns_ms=turns_ms,
        loaded_bytes=sum(manifest["files"][name]["bytes"] for name in loaded),
    )


def browser_tables(content: Mapping[str, Any]) -> str:
    """The tables of docs/browser.md, from the JSON that --out writes."""
    lines = [
        "| file | runtime | backend | computes in | threads | ms a face | MB loaded |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
    ]
    timed = [row for row in content["rows"] if EMULATED not in row["target"]]
    lines += [
        f"| `{row['file']}` | {each['runtime']} | {each['backend']} | {each['computes']} |"
        f" {each['threads']} | {each['ms']:.0f} | {each['loaded_bytes'] / 1e6:.1f} |"
        for row, each in zip(timed, content["speeds"], strict=True)
    ]
    rows = [TargetRow(**row) for row in content["rows"]]
    measured = f"Measured in {content['browser']}; {content['note']}."
    tables = [targets_table(rows), "\n".join(lines)]
    if content["peers"]:
        tables.append(peer_table([PeerRow(**row) for row in content["peers"]]))
    return "\n\n".join([*tables, measured])
