"""What benchmarks.studies.engines measured, as Markdown: files within the budget, and recipes."""

from typing import TYPE_CHECKING

from benchmarks.harness.table import markdown_table

if TYPE_CHECKING:
    from benchmarks.studies.engines import EngineComparison


def engines_table(found: "EngineComparison") -> str:
    """Markdown: a row for each file, the failures below."""

    def decibels(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    lines = [
        (
            *(row.engine, row.target, row.backend),
            *(decibels(row.fidelity_db, 1), decibels(row.worst_fidelity_db, 1)),
            *(decibels(row.expected_drift_db, 4), decibels(row.drift_db, 4)),
            decibels(row.worst_drift_db, 3),
            "" if row.int8_mac_share is None else f"{row.int8_mac_share:.1%}",
            "" if row.reverted is None else str(row.reverted),
        )
        for row in found.rows
        if row.fidelity_db is not None
    ]
    columns = (
        *("engine", "target, file", "measured in", "fidelity dB", "worst face dB"),
        *("expected drift dB", "measured drift dB", "worst drift dB", "in INT8", "kept in FP32"),
    )
    notes = [
        f"\n{row.engine} for {row.target}: {row.failure}." for row in found.rows if row.failure
    ]
    notes += [f"\n`auto` for {target}: {choice}." for target, choice in found.choices.items()]
    return "\n".join([_machine(found), markdown_table(columns, lines), *notes])


def _machine(found: "EngineComparison") -> str:
    faces = (
        "" if found.calibration_faces is None else f"{found.calibration_faces} calibration faces, "
    )
    took = "" if found.minutes is None else f"; the run took {found.minutes:g} minutes"
    return f"{found.model}, {faces}{found.processor}, nncf {found.versions['nncf']}{took}.\n"


def steps_table(found: "EngineComparison") -> str:
    """Markdown: a row for each recipe; for each target the fidelity, and the drift if measured."""
    targets = list(dict.fromkeys(row.target for row in found.steps))
    recipes = list(dict.fromkeys((row.engine, row.step) for row in found.steps))
    by_place = {(row.engine, row.step, row.target): row for row in found.steps}
    measured = any(row.drift_db is not None for row in found.steps)
    columns = ["engine", "recipe"]
    for target in targets:
        columns += [f"{target}, fidelity dB (worst)"]
        columns += [f"{target}, drift dB (worst)"] if measured else []
    lines = []
    for engine, step in recipes:
        cells = []
        for target in targets:
            row = by_place.get((engine, step, target))
            if row is None or row.fidelity_db is None:
                cells += ["failed", ""] if measured else ["failed"]
                continue
            cells.append(f"{row.fidelity_db:.1f} ({row.worst_fidelity_db:.1f})")
            if row.drift_db is not None:
                cells.append(f"{row.drift_db:.4f} ({row.worst_drift_db:.3f})")
        lines.append((engine, step, *cells))
    layers = ", ".join(f"{by_place[(*recipes[0], t)].layers} for {t}" for t in targets)
    return "\n".join(
        [
            f"The layers that the native file has in INT8: {layers}.\n",
            markdown_table(tuple(columns), lines),
            *(f"\n{_margin(found, target)}" for target in targets),
            *(
                f"\n{row.engine}, {row.step}, for {row.target}: {row.failure}."
                for row in found.steps
                if row.failure
            ),
        ]
    )


def _margin(found: "EngineComparison", target: str) -> str:
    """How the native recipe compares with the best of NNCF's of the same layers."""
    native, nncf = (
        [
            (row.fidelity_db, row)
            for row in found.steps
            if (row.engine, row.target) == (engine, target) and row.fidelity_db is not None
        ]
        for engine in ("native", "nncf")
    )
    (own_db, own), (best_db, best) = native[-1], max(nncf, key=lambda pair: pair[0])
    difference_db = own_db - best_db
    said = (
        f"For {target}, native's whole recipe is {abs(difference_db):.1f} dB"
        f" {'above' if difference_db >= 0 else 'below'} the best of NNCF's ({best.step})"
    )
    drifts_db = [row.worst_drift_db for _, row in nncf if row.worst_drift_db is not None]
    if own.worst_drift_db is None or not drifts_db:
        return f"{said}."
    return (
        f"{said}; the worst real face loses {own.worst_drift_db:.3f} dB with it, and"
        f" {min(drifts_db):.3f} at least with NNCF's."
    )
